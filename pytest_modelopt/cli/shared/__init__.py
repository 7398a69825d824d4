"""What several commands share: arguments, records as commands read them, what is printed, and exit codes."""
