"""The parts of prune-structured: what may get narrower, heads, the scores, the knife, and statistics of batch norm."""
