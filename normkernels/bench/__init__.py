"""The benchmark suite behind `normkernels bench`."""
