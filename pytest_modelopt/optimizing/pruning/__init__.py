"""Recipes that remove weights, and the layers that they leave behind."""
