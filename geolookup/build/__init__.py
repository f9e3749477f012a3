"""Building datasets: manifests and sources are read, and compiled into one file."""
