"""Scripts that remake the data and the weights: run them with `python -m example_project.training.NAME`."""
