"""What matters, and how much? Pure functions from deployments and results to answers."""
