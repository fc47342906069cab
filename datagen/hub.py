"""Data sets on the Hugging Face Hub: their addresses, the files at a commit, and a store there as a place that can be read.

Tokens are the client's own affair: it takes them from the environment or from ``hf auth login``.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote, unquote

from datagen.bucket import LOG_IN, BucketError, BucketPath, check_key, one_line
from datagen.errors import DatagenError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile
    from obstore.store import ObjectStore

KIND = "dataset"
STORE = "store.zarr"  # where a repository of ours keeps its store
_REPO = r"([\w.-]+/[\w.-]+)"
MALFORMED = f"the token has characters that no token has; {LOG_IN}"
_SHA = re.compile(r"[0-9a-f]{40}")
_BLOCK = 1 << 20


class HubError(BucketError):
    """The Hub cannot do what is asked: not there, not reached, not allowed."""


@contextmanager
def hub_errors(repo: str) -> Iterator[None]:
    """What the Hub's client raises inside becomes one line, without anything that a server or a token says of itself.

    :raises HubError: always for such errors
    """
    from huggingface_hub import errors

    network: Any = errors.HfHubHTTPError.__bases__[0]  # the root of httpx's errors, whichever httpx the client uses
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise HubError(
            f"{repo} is on the Hub and HF_HUB_OFFLINE is set; unset it, or use a store that was pulled"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"the data set {repo} has no such branch, tag or commit; its page lists them") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"there is no data set {repo} on the Hub, or it is private; for that {LOG_IN} read it") from None
    except errors.LocalTokenNotFoundError:
        raise HubError(f"no token for {repo}; {LOG_IN} write to it") from None
    except errors.HFValidationError:
        raise HubError(f"{repo!r} is no name of a data set; give ORG/NAME of letters, digits, -, _ and .") from None
    except UnicodeEncodeError:  # which would show the token
        raise HubError(MALFORMED) from None
    except errors.HfHubHTTPError as error:
        raise HubError(f"{repo}: {_status(error.response.status_code)}") from None
    except errors.LocalEntryNotFoundError:  # what a download makes of a network that fails
        raise HubError(f"{repo}: the Hub cannot be reached; check the network and HF_ENDPOINT") from None
    except (network, ConnectionError) as error:
        raise HubError(
            f"{repo}: the Hub cannot be reached ({type(error).__name__}); check the network and HF_ENDPOINT"
        ) from None


def _status(code: int) -> str:
    if code == 401:
        return f"the Hub does not know the token; {LOG_IN}"
    if code == 403:
        return f"the token may not do this; {LOG_IN}"
    if code in (409, 412):
        return "somebody else has just changed it; give the same command again"
    if code == 429:
        return "the Hub has had too many requests; try again in some minutes"
    return f"the Hub answers with HTTP status {code}" + ("; try again later" if code >= 500 else "")


def api() -> HfApi:
    """The Hub's client, at the endpoint of the environment."""
    from huggingface_hub import HfApi

    return HfApi(library_name="datagen")


def parse_address(text: str) -> tuple[str, str | None]:
    """Repository and revision of ``ORG/NAME[@REVISION]``; None for the branch ``main``.

    :raises DatagenError: it is no such address
    """
    match = re.fullmatch(rf"(?:hf://datasets/)?{_REPO}(?:@([\w./-]+))?", text)
    if match is None:
        raise DatagenError(f"{text!r} is no data set on the Hub; give ORG/NAME or ORG/NAME@REVISION")
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    with hub_errors(match[1]):
        validate_repo_id(match[1])
    return match[1], match[2]


def commit(repo: str, revision: str | None) -> str:
    """The commit that a revision points to now.

    :raises HubError: no such data set or revision, or the Hub cannot be reached
    """
    with hub_errors(repo):
        found = api().repo_info(repo, repo_type=KIND, revision=revision).sha
    if found is None or not _SHA.fullmatch(found):
        raise HubError(f"{repo}: the Hub names no commit for {revision or 'main'}; check HF_ENDPOINT")
    return found


def tree(repo: str, sha: str) -> Mapping[str, RepoFile]:
    """Every file of a commit by its name.

    :raises HubError: no such data set or commit, or the Hub cannot be reached
    """
    return _tree(api().endpoint, repo, sha)


@functools.lru_cache(maxsize=8)  # a commit never changes
def _tree(endpoint: str, repo: str, sha: str) -> Mapping[str, RepoFile]:
    from huggingface_hub.hf_api import RepoFile

    with hub_errors(repo):
        entries = list(api().list_repo_tree(repo, repo_type=KIND, revision=sha, recursive=True))
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


@dataclass(frozen=True)
class Digests:
    """What the Hub says of a file: its size, its SHA-256 where it is a large one, else its hash as git knows it."""

    size: int
    sha256: str
    git: str

    @classmethod
    def of(cls, content: Path | bytes, advance: Callable[[int], object] = int) -> Self:
        """Those of a file, or of bytes.

        :param advance: told of bytes as they are read
        """
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        sha256, git = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        for block in _blocks(content):
            sha256.update(block)
            git.update(block)
            advance(len(block))
        return cls(size, sha256.hexdigest(), git.hexdigest())

    def match(self, remote: RepoFile | None) -> bool:
        """Whether a file on the Hub has the same bytes."""
        if remote is None or remote.size != self.size:
            return False
        return remote.blob_id == self.git if remote.lfs is None else remote.lfs.sha256 == self.sha256


def _blocks(content: Path | bytes) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block


class HubPath(BucketPath):
    """A store in a data set on the Hub, or a part of it: ``hf://datasets/ORG/NAME@REVISION/store.zarr``, for reading alone."""

    def __reduce__(self) -> tuple[Any, ...]:
        return hub_path, (str(self),)

    @property
    def repo(self) -> str:
        return _split(self.root)[0]

    @property
    def revision(self) -> str | None:
        """Branch, tag or commit; None for the branch ``main``."""
        return _split(self.root)[1]

    @functools.cached_property
    def rooted(self) -> ObjectStore:
        return _connect(self.root, self.key)

    def check(self) -> None:
        """:raises HubError: no such data set or revision, or the Hub cannot be reached"""
        commit(self.repo, self.revision)

    def pinned(self) -> Self:
        root = f"hf://datasets/{self.repo}@{commit(self.repo, self.revision)}"
        return replace(self, root=root, client=_connect(root))

    def check_writable(self) -> NoReturn:
        self._refuse()

    def files(self) -> dict[str, int]:
        return {
            name.removeprefix(f"{self.key}/"): file.size for name, file in self._tree().items() if self._holds(name)
        }

    def is_dir(self) -> bool:
        return any(map(self._holds, self._tree()))

    def exists(self) -> bool:
        return self.key in self._tree() or self.is_dir()

    def iterdir(self) -> Iterator[Self]:
        yield from (self / name for name in sorted({name.partition("/")[0] for name in self.files()}))

    def put(self, *_: object, **__: object) -> NoReturn:
        self._refuse()

    def unlink(self, missing_ok: bool = False) -> NoReturn:
        self._refuse()

    def copy_to(self, target: BucketPath) -> NoReturn:
        self._refuse()

    def _holds(self, name: str) -> bool:
        return name.startswith(f"{self.key}/")

    def _tree(self) -> Mapping[str, RepoFile]:
        revision = self.revision
        return tree(self.repo, revision if revision and _SHA.fullmatch(revision) else commit(self.repo, revision))

    def _refuse(self) -> NoReturn:
        raise HubError(
            f"{self} can only be read; make the store in a directory, then: datagen publish STORE --repo {self.repo}"
        )


def hub_path(url: str) -> HubPath:
    """The place that a URL names; nothing is looked up.

    :raises DatagenError: it is not of the form ``hf://datasets/ORG/NAME[@REVISION][/store.zarr]``
    """
    match = re.fullmatch(rf"(hf://datasets/{_REPO}(?:@[\w.%-]+)?)(?:/(.*))?", url.rstrip("/"))
    if match is None:
        raise DatagenError(f"{url} is no place on the Hub; give hf://datasets/ORG/NAME@REVISION/{STORE}")
    root, key = match[1], match[3] or STORE
    check_key(url, key)
    return HubPath(root, key, _connect(root))


def _split(root: str) -> tuple[str, str | None]:
    """Repository and revision of a :class:`HubPath`'s root; a slash in a revision is written %2F."""
    repo, _, revision = root.removeprefix("hf://datasets/").partition("@")
    return repo, unquote(revision) or None


def _connect(root: str, key: str = "") -> ObjectStore:
    """A connection that reads ranges of bytes, with the client's endpoint and token; the token goes to the endpoint alone."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
    from obstore.store import HTTPStore

    repo, revision = _split(root)
    url = f"{api().endpoint}/datasets/{repo}/resolve/{quote(revision or 'main', safe='')}"
    options: Any = {
        "allow_http": True, "default_headers": build_hf_headers(library_name="datagen"), "timeout": timedelta(minutes=10),
    }  # fmt: skip
    with one_line(root):
        try:
            return HTTPStore.from_url(f"{url}/{key}".rstrip("/"), client_options=options)
        except ValueError:  # of a header
            raise HubError(MALFORMED) from None
