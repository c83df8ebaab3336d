"""What the command line and the pages in Flower both say: times, rates, and what is wrong."""
