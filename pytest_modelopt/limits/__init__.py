"""What can be limited: the catalogue, and values with their units."""
