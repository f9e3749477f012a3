"""Load for a running service: ``python -m bench.load TARGET``; see docs/load.md.

`options` reads the command line and `command` does what it says. `client_processes` starts
processes and joins their results; each of them is a `generator`, which makes the calls of a
`work`, when `arrivals` says so, in C (`native`) or through one of the `senders` in Python, and
keeps `latencies`. `plan` is what goes to them and comes back, `targets` whom they may ask. A
`session` adds to a run what it cost the service (`metrics`) and what the generator bears
(`ceiling`); `knee` and `comparison` decide what follows from runs; `report`, `page` and `plots`
show it.
"""
