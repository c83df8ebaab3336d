"""Pure decisions: clock and chance are passed in."""
