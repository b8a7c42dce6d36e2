"""Pure cost models and profiles; a source for every constant."""
