"""The Celery app, its transport, its beat and its end."""
