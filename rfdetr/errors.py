"""Errors that a user can act on."""


class UserError(Exception):
    """Wrong input or a missing condition. The message names the input and the remedy.

    The command line prints it without a traceback and exits with code 2.
    """


class NotFoundError(UserError):
    """There is no such dataset, or it has no such split."""
