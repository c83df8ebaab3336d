"""The decisions of the scheduler as pure functions: clock and chance are passed in."""
