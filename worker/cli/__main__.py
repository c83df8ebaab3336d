"""`python -m worker.cli` is the console script `cavendish`."""

from worker.cli import main

main()
