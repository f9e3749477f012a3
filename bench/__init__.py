"""Benchmarks: which tool answers which question stands in README.md beside this file."""
