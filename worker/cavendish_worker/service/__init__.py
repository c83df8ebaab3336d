"""The HTTP service: the API of producers under /v1, and the health checks.

`application.py` puts it together: a new subject is a router of its own, named there.
"""
