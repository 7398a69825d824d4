"""Shared parts of several commands: arguments, records as commands read them, what is printed, and exit codes."""
