"""What the Hub's client raises, in one line each, and never with a token."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from zoo.errors import ZooError


class AbsentError(ZooError):
    """The repository is there, the file is not."""


@contextlib.contextmanager
def explained(repo: str, path: str = "", revision: str | None = None) -> Iterator[None]:
    """Turn the client's errors into one line each.

    :raises AbsentError: there is no such file
    :raises ZooError: anything else
    """
    from huggingface_hub.errors import RemoteEntryNotFoundError

    try:
        yield
    except RemoteEntryNotFoundError:
        raise AbsentError(f"{repo} has no file {path}" + (f" at {revision}" if revision else "")) from None
    except (http_error(), OSError, ValueError, RuntimeError) as error:
        raise ZooError(_told(error, repo, path, revision)) from None


def http_error() -> type[Exception]:
    """``HTTPError`` of the HTTP library that the client uses: httpx up to 1.x, then its successor."""
    from huggingface_hub.errors import HfHubHTTPError

    found: type[Exception] = HfHubHTTPError.__bases__[0]
    return found


def status(error: BaseException) -> int | None:
    """HTTP status that an error of the client, or what caused it, comes from."""
    found: BaseException | None = error
    while found is not None:
        response = getattr(found, "response", None)
        if response is not None:
            return int(response.status_code)
        found = found.__cause__
    return None


def _told(error: Exception, repo: str, path: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    what = f"{path} of {repo}" if path else repo
    code = status(error)
    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} is no name of a repository on the Hub; give ORG/name"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo} is gated; ask for access on its page, then hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no repository {repo}, or it is private; see hf auth login"
    if code == 401:
        return "the Hub does not know this token; hf auth login, or set HF_TOKEN anew"
    if code == 403:
        return f"the Hub refuses {what} to this token; see hf auth whoami"
    if code is not None:
        return f"the Hub answers {code} when asked for {what}; try again later"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return f"{what} is not in the cache and the Hub cannot be reached"
    if isinstance(error, UnicodeEncodeError) or "LocalProtocol" in type(error).__name__:  # which would show the token
        return "the token is malformed; hf auth login, or set HF_TOKEN anew"
    if isinstance(error, http_error()):
        return f"cannot reach the Hub at {constants.ENDPOINT} for {what}: {type(error).__name__}"
    cause = error.__cause__
    if isinstance(error, RuntimeError | ValueError) and isinstance(cause, Exception):
        return _told(cause, repo, path, revision)
    return f"cannot get {what}: {scrubbed(getattr(error, 'strerror', None) or str(error))}"


def scrubbed(text: str) -> str:
    """First line of a message, without any token."""
    from huggingface_hub import get_token

    token = get_token()
    text = (text.splitlines() or [""])[0]
    text = text.replace(token, "[token]") if token else text
    return re.sub(r"Bearer \S+|hf_\w+", "[token]", text)
