"""Waits of one process for the ends of ids; one thread wakes all of them."""
