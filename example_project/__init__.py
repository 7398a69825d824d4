"""Two small trained PyTorch models, each with its own data: handwritten digits and spoken digits."""
