"""What the environment says: texts of its variables, local paths, URLs of Redis."""
