"""The errors a user can meet; each message is one line."""


class ZooError(Exception):
    """Bad input: an unknown name, a file that is not what it should be, a payload of the wrong length. The CLI exits with 2."""

    exit_code = 2


class CheckError(ZooError):
    """A model does not do what its record says it does. The CLI exits with 1."""

    exit_code = 1


class Interrupted(ZooError):  # noqa: N818, it is no error
    """Stopped from outside (Ctrl-C or SIGTERM); the same command with --resume goes on. The CLI exits with 130."""

    exit_code = 130
