"""Providers as tests need them: strict, on a port of this machine, and without a mind."""
