"""Flower, and our pages inside it."""
