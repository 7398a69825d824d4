"""Head against base: another git revision, or a saved record, of the same project."""
