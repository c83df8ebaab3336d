"""`python -m cavendish_worker.cli` is the console script `cavendish`."""

from cavendish_worker.cli import main

main()
