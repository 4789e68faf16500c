"""The exceptions that the command line knows."""


class InputError(ValueError):
    """Wrong input. The message is one line: what is wrong, what was got, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class Diverged(ArithmeticError):
    """Training cannot continue: a loss, a weight or the optimizer's state is not finite.

    The message names the step, what is not finite and what to try. The command line prints it without a traceback and
    exits with code 1; no checkpoint of such a state is written.
    """


class Preempted(Exception):
    """A signal asked for a stop, and what was done is saved: the same command resumes from there.

    The command line prints the message and exits with code 75.
    """
