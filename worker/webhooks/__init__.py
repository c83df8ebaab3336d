"""What is owed is announced: claimed, signed, sent, and written down."""
