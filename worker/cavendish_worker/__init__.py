"""The runtime.

Celery, HTTP, the command line. Imports the store (`scheduler`), which never imports back.
"""
