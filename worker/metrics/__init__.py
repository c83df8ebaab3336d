"""What Prometheus is told: `recorded` is what one worker process did, `scraped` what the book says of the whole fleet."""
