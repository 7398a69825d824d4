"""Evaluation and calibration data in a worker."""
