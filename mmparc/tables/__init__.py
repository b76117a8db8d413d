"""Tables of experiments: what they hold, what of them has run, and what came out."""

from .plan import Row, Run, Table, load_table, schedule_of, table_names

__all__ = ['Row', 'Run', 'Table', 'load_table', 'schedule_of', 'table_names']
