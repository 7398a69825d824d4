"""How a model is made cheaper: expressions, the registry, one file per technique, and what each changed."""
