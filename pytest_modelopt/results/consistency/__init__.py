"""Figures of a record that imply each other, and what its counts and columns must be."""
