"""The hands: Celery, HTTP, the command line. Imports the book (`scheduler`), which never imports back."""
