"""The errors a user can meet; each message is one line."""

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Bad input: an unknown name, a file that is not what it should be, a payload of the wrong length. The CLI exits with 2."""

    exit_code = 2


class CheckError(ZooError):
    """A model does not do what its record says it does. The CLI exits with 1."""

    exit_code = 1


class Interrupted(ZooError):  # noqa: N818, it is no error
    """Stopped from outside (Ctrl-C or SIGTERM); the same command with --resume goes on. The CLI exits with 130."""

    exit_code = 130


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Message for a name that is none of those allowed, with the nearest, or all of them where none is near."""
    known = list(allowed)
    near = difflib.get_close_matches(name.rsplit(".", 1)[-1], known, n=1)
    return f"unknown {kind} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(known)}")
