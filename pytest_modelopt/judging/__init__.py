"""A measured case and its limits in, verdicts out."""
