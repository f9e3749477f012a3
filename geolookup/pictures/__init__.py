"""Pictures of a dataset: the IPv4 space along a Hilbert curve, seen in one look.

`subjects` says what a picture shows, `cells` what is in each of its cells, `drawing` draws.
"""
