"""What a model costs: multiply-adds (flops.py, on mmengine) and time (the rest, on torch alone)."""
