"""The catalog file: what loads, and what each mistake is answered with."""
