"""Answering: an open dataset, the addresses looked up in it, and what an answer holds."""
