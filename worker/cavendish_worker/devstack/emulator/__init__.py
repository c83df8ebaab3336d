"""The pretend API and a receiver of webhooks, for tests, benches and the demo."""
