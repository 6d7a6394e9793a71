"""The errors that a user can cause, each a line that says what to do. Every other exception is a mistake of ours."""


class UserError(ValueError):
    """An argument, a file or a folder that does not fit; its words name it, its value, the rule and the way on.

    A command shows it in one line. Everything else keeps its traceback.
    """


class DivergedError(UserError, FloatingPointError):
    """A training whose loss or gradient stopped being finite."""
