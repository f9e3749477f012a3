"""Outside judges of the native transport: `python -m tests.conformance`."""
