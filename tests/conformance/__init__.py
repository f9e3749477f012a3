"""Outside judges of the native transport; see `run` in this folder."""
