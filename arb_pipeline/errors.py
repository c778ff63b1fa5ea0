"""The base of every error that is its user's to mend."""

__all__ = ["ArbError"]


class ArbError(Exception):
    """Something that the user can mend; the message names the field or file, the value and the remedy.

    The command line prints it in one line and exits with 1; anything else is a defect and keeps its traceback.
    """
