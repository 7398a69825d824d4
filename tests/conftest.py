"""Shared by all rooms' tests."""

pytest_plugins = ["pytester"]
