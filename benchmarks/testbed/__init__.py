"""Parts of the benchmarks of the testbed: worlds, memory, and the same worlds in SimPy."""
