"""What is pending is announced: claimed, signed, sent, and written down."""
