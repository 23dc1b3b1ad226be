"""Measurements of modelyard beside its peers: `python -m benchmarks`, or `make bench`."""
