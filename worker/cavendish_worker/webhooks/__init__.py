"""From a pending webhook to its delivery: claim, sign, send, and write back."""
