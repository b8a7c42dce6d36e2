"""Language models on constrained devices: a C engine with the same bits everywhere."""

__version__ = "0.1.0"
