"""The only room that touches SimGrid."""
