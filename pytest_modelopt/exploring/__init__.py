"""The choice of a recipe: what is tried, how it is narrowed down, and what holds when it is measured anew."""
