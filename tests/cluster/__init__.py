"""The Kubernetes manifests: held to schemas by pytest, to a real API server by `python -m`."""
