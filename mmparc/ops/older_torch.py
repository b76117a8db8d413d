"""What torch 2.1 names otherwise: torch's own functions, where it has them."""

import torch

# torch 2.1 lacks it, and does not compile ParC
is_compiling = getattr(torch.compiler, 'is_compiling', lambda: False)

if hasattr(torch, 'get_autocast_dtype'):  # of torch 2.4, as is_autocast_enabled's argument
    get_autocast_dtype = torch.get_autocast_dtype

    def is_autocast_enabled(device: str) -> bool:
        """Of a type of device; torch's own does not know 'meta'."""
        return device != 'meta' and torch.is_autocast_enabled(device)
else:

    def is_autocast_enabled(device: str) -> bool:
        """Of a type of device."""
        return torch.is_autocast_cpu_enabled() if device == 'cpu' else torch.is_autocast_enabled()

    def get_autocast_dtype(device: str) -> torch.dtype:
        """Of a type of device."""
        return torch.get_autocast_cpu_dtype() if device == 'cpu' else torch.get_autocast_gpu_dtype()
