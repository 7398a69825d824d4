"""The model under comparison, and tests of its speed as users of other tools write them."""
