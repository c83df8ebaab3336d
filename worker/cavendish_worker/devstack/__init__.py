"""`cavendish up`: the whole stack on one machine, and an emulated API."""
