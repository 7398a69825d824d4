"""Why it did not help: the known pitfalls, each a small rule on what a case has."""
