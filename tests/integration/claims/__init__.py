"""Claims on a real Redis: a message is in one place, and the first outcome of a request stands."""
