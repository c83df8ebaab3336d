"""Reads the environment: values of its variables, local paths, URLs of Redis."""
