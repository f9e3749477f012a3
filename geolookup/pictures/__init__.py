"""Pictures of a dataset: the IPv4 space along a Hilbert curve.

`subjects` says what a picture shows, `cells` what is in each of its cells, `drawing` draws;
`bars` and `accuracy` draw reports, and `charts` has what all of them share.
"""
