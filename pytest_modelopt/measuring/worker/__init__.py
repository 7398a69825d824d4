"""The worker's side of measuring: one variant, loaded, called, weighed and scored."""
