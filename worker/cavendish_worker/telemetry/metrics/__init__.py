"""The metrics for Prometheus.

`recorded` counts what one worker process does, `scraped` reads the store of the whole fleet.
"""
