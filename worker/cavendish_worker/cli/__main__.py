"""`python -m cavendish_worker.cli` is the console script `cavendish`."""

from cavendish_worker.entry import main

main()
