"""The errors a user can meet. Each message is one line: what was wrong, what is allowed, what to do next."""


class DatagenError(Exception):
    """Something the user can put right: bad input, a path in use, a full disk. The CLI exits with 2."""

    exit_code = 2


class VerificationError(DatagenError):
    """The data are not what their manifest says. The CLI exits with 1."""

    exit_code = 1


class Interrupted(DatagenError):  # noqa: N818 - it is no error of anyone's
    """The user stopped the run; finished shards are kept. The CLI exits with 130, as shells do after Ctrl-C."""

    exit_code = 130
