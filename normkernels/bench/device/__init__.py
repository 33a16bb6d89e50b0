"""The benchmark on a CUDA device: every library in a process of its own, timed by device events."""
