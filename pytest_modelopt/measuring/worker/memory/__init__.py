"""The meters of memory in a worker, and the books in which they must balance."""
