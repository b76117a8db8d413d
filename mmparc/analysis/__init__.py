"""What a model costs."""

from .flops import Count, Report, count_config, count_multiply_adds, input_size

__all__ = ['Count', 'Report', 'count_config', 'count_multiply_adds', 'input_size']
