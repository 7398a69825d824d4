"""The metrics in a worker: each scorer takes a model's outputs batch by batch, and gives the score at the end."""
