"""Tests of the example project (a package, so that a bare `pytest` finds `example_project`)."""
