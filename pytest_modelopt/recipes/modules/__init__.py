"""Modules that variants are made of. They import torch, so recipes import them only when they are applied."""
