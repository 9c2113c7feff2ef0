"""A lock on a file that ends with the process that holds it, however that ends."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a Unix: there is no such lock
    fcntl = None

# What file systems answer that know no such locks; there the run goes without.
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold `path`, an empty file made where it is missing; yields False, at once, where someone else does.

    The system lets go of the lock when the process ends, so that kill -9 leaves none behind. The file stays:
    removing it would let a third process lock another file of the same name. Where the system or its file
    system has no such locks, this always yields True.
    """
    with open(path, "a") as file:
        yield _locked(file)


def _locked(file) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
    return True
