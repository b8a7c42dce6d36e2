"""The parts of compare_engines.py: figures and targets (pure), files, engines in turn, pages."""
