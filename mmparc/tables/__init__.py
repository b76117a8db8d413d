"""Tables of experiments: what they hold, what of them has run, and what came out."""

from .plan import Row, Run, Table, load_table, plain_row, schedule_of, table_names
from .state import State, last_checkpoint, state_of

__all__ = [
    'Row',
    'Run',
    'State',
    'Table',
    'last_checkpoint',
    'load_table',
    'plain_row',
    'schedule_of',
    'state_of',
    'table_names',
]
