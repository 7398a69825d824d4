"""Calls of a variant: what is called, on which inputs, and how long a block of calls takes."""
