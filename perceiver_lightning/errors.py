"""The one error that is shown without its traceback."""


class InputError(ValueError):
    """Something a person gave is wrong: a file, a folder, a config key, a checkpoint.

    Raised where the file or key is known, with one sentence that names it and says what was expected and what was
    found. The command line prints that sentence and exits with status 2; every other exception is a bug and keeps
    its traceback.
    """
