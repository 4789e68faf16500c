"""The one exception that means: the user's input is wrong."""


class InputError(ValueError):
    """Wrong input. The message is one line: what is wrong, what was got, what to do.

    The command line prints it without a traceback and exits with code 2.
    """
