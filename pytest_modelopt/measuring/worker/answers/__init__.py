"""What a variant answers to the examples: scores, looks, second passes, and answers to other inputs."""
