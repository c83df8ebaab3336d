"""Webhook endpoints: their options, their secrets, and how operators change them."""
