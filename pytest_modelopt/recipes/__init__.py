"""How a model is made cheaper: recipe expressions, the registry, one file per technique, and what each really changed."""
