"""Quantising a model file, and the importance matrix that it uses."""
