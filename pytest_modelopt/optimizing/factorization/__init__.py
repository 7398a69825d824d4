"""Recipes that replace a matrix by a product of thinner ones."""
