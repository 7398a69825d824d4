"""Recipes that hand the model to another runtime: one folder for each runtime."""
