"""The parts of prune-structured: what may get narrower, attention heads, the scores, the knife, and the recovery."""
