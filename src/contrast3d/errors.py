"""The one exception family: what was found, what was expected, and how to mend it, on one line each."""


class Contrast3dError(Exception):
    """Base of everything this library raises on purpose; the command line prints it without a traceback."""


class DataError(Contrast3dError, ValueError):
    """A file or an array is not what it should be.

    Compose the message of up to four parts, in this order: the file or argument, what was found, what was
    expected, and the command or change that mends it.
    """

    def __init__(self, where: str, found: str, expected: str = "", fix: str = ""):
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        message = f"{where}: {found}"
        if expected:
            message += f"; expected {expected}"
        if fix:
            message += f". Try: {fix}"
        super().__init__(message)


class MissingDataError(DataError, FileNotFoundError):
    """A data set, run or file is not where it was looked for."""

    def __str__(self) -> str:  # FileNotFoundError would format its own errno arguments
        return self.args[0]


class UnreadableError(DataError):
    """What keeps a file from being read lies outside of it: rights, a link, a package, too little memory.

    So nothing is remembered against the file: it is tried again next time.
    """


class ConfigError(Contrast3dError, ValueError):
    """A field, flag or combination of parts that cannot work."""


class FailedElsewhere(Contrast3dError):
    """Another process of the same run failed, and says why; this one only ends with it."""


class CollapseWarning(UserWarning):
    """Training produces features that carry no information, or views that do not differ."""
