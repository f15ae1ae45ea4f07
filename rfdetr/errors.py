"""Errors that a user can act on."""


class UserError(Exception):
    """Wrong input or a missing condition. The message names the input and the remedy.

    The command line prints it without a traceback and exits with code 2; a notebook shows it as one line.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [f"{type(self).__name__}: {self}"]


class NotFoundError(UserError):
    """There is no such dataset, or it has no such split."""
