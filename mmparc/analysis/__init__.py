"""What a model costs (flops, timing) and what it learned (kernels, sizes, predictions, erf)."""
