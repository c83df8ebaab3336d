"""HTTP connections: streams, pools of them, and the way out for webhooks."""
