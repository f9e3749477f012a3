"""What can go wrong with a running service, done to a real one: ``python -m tests.chaos``.

`attacks` has clients that do harm. `subject` runs the service, watches what it uses, and asks
it what honest clients ask. `faults` is the table: what is done, what is required, and what
was measured. tests/test_chaos.py runs the short form.
"""
