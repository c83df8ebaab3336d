"""Webhook endpoints: what is known of them, their secrets, and how operators change them."""
