"""`cavendish up`: the whole stack on one machine, and a pretend API."""
