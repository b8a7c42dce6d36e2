"""The testbed: fleets of constrained devices simulated with SimGrid."""
