"""Storms over real processes, and a checker that counts what they lost, stranded or doubled.

`python -m chaos` (with `tests` as current folder or on PYTHONPATH) runs them; `make chaos` writes
`docs/reliability.md`. Every submit is logged before it is sent, every call by the endpoint, every
outcome by the waiter and by a recorder beside it; the checker is a pure function of these logs and
of what is left in Redis at the end.
"""
