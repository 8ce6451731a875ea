"""The one error that dev/stack tells its user about."""


class StackError(Exception):
    """What went wrong, in words for the person who typed the command."""
