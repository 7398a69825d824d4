"""Recipes that keep the numbers and change how the model computes with them."""
