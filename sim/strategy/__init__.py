"""Deployment strategies, each a generator over simulated resources."""
