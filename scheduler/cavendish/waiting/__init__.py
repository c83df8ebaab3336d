"""Waits of one process for what ends, all told by one thread."""
