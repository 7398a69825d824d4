"""Benchmarks of the project itself; README.md beside this file says what each one shows and how to repeat it."""
