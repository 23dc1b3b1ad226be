"""Experiments: who is in which arm, how they go, and when one is taken back."""
