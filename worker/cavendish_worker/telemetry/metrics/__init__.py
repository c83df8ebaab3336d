"""What Prometheus is told.

`recorded` is what one worker process did, `scraped` what the store says of the whole fleet.
"""
