"""Recipes that store or compute with fewer bits, and the layers that they leave behind."""
