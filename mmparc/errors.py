"""The error that a tool shows in one line. Imports no package."""


class UserError(Exception):
    """Something that the user can fix; the message is one line: the cause, and what to do."""
