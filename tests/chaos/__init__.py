"""What can go wrong with a running service, done to a real one: ``python -m tests.chaos``.

`faults` is the table: what is done, what is required, and what was measured. Its rows are made in
`processes` (workers and the supervisor are killed), `reloading`, `clocks`, `overload` and
`network`, whose clients that do harm are in `attacks`. `subject` runs the service, watches what
it uses, and asks it what honest clients ask. tests/chaos/test_chaos.py runs the short form.
"""
