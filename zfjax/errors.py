"""The errors that a user can cause, each a line that says what to do. Every other exception is a mistake of ours."""


class UserError(ValueError):
    """An argument, a file or a folder that does not fit; its words name it, its value, the rule and the way on.

    A command shows it in one line. Everything else keeps its traceback.
    """


class NotThereError(UserError, FileNotFoundError):
    """A file, folder or set that is not there; how to make it stands in its words."""


class HeldError(UserError):
    """A folder that another process is writing into."""


class FailedError(OSError):
    """Work on files that failed, and why: shown in one line too, and no ValueError, as no argument is at fault."""


class DivergedError(UserError, FloatingPointError):
    """A training whose loss or gradient stopped being finite."""
