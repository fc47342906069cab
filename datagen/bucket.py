"""A prefix in a bucket as a place for a store: the few methods of ``pathlib.Path`` that stores and ledgers need.

They have the same meaning as there, and raise the same ``FileNotFoundError``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from datagen.errors import DatagenError

if TYPE_CHECKING:
    from obstore import UpdateVersion
    from obstore.store import ObjectStore

REQUESTS = 16  # to a bucket at a time
LARGEST_COPY = 5 << 30  # bytes of an object that S3 copies in one piece


class BucketError(DatagenError):
    """A bucket that cannot be used: not there, not reached, not allowed."""


class ConditionError(BucketError):
    """An object was not as a conditional put wants it."""


@dataclass(frozen=True)
class BucketPath:
    """A prefix or an object in a bucket, such as ``s3://bucket/name.zarr``. Credentials and endpoint are the environment's.

    It is pickled as an address; whoever receives it connects with an environment of its own.
    """

    root: str  # s3://bucket
    key: str
    client: ObjectStore = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"

    def __reduce__(self) -> tuple[Any, ...]:
        return bucket_path, (str(self),)

    def __truediv__(self, name: str) -> Self:
        return self._at(f"{self.key}/{name}")

    def _at(self, key: object) -> Self:
        return replace(self, key=str(key))

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    @property
    def parent(self) -> Self:
        return self._at(PurePosixPath(self.key).parent)

    def with_name(self, name: str) -> Self:
        return self._at(PurePosixPath(self.key).with_name(name))

    @functools.cached_property
    def rooted(self) -> ObjectStore:
        """A client for whom this prefix is the root: zarr would make groups of what lies above."""
        return _client(str(self))

    def read_text(self) -> str:
        """:raises FileNotFoundError: there is no such object"""
        return self.read()[0].decode()

    def is_dir(self) -> bool:
        """Whether anything lies beneath."""
        with _one_line(self):
            return any(self.client.list(self.key, chunk_size=1))

    def exists(self) -> bool:
        """Whether there is an object, or anything beneath."""
        try:
            with _one_line(self):
                self.client.head(self.key)
        except FileNotFoundError:
            return self.is_dir()
        return True

    def iterdir(self) -> Iterator[Self]:
        with _one_line(self):
            found = self.client.list_with_delimiter(self.key)
        for key in (*found["common_prefixes"], *(entry["path"] for entry in found["objects"])):
            yield self._at(key.rstrip("/"))

    def glob(self, pattern: str) -> Iterator[Self]:
        depth = pattern.count("/")
        for name in self.files():
            if name.count("/") == depth and PurePosixPath(name).match(pattern):
                yield self / name

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: a prefix is there when something lies beneath."""

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object; one that is missing is no error, for S3 does not tell."""
        with suppress(FileNotFoundError), _one_line(self):
            self.client.delete(self.key)

    # what a file system has no need of

    def put(self, data: bytes, *, tag: UpdateVersion | None = None, new: bool = False) -> UpdateVersion:
        """Write an object whole.

        :param tag: replace what has this tag, and nothing else
        :param new: replace nothing
        :returns: the tag of what was written
        :raises ConditionError: something else is there
        :raises FileNotFoundError: nothing is there, but a tag was given
        """
        with _one_line(self):
            return _tag(self.client.put(self.key, data, mode="create" if new else tag or "overwrite"))

    def read(self) -> tuple[bytes, UpdateVersion]:
        """An object and its tag."""
        with _one_line(self):
            found = self.client.get(self.key)
            tag = _tag(found.meta)
            return bytes(found.bytes()), tag

    def modified(self) -> datetime:
        """When the object was written, by the server's clock."""
        with _one_line(self):
            return self.client.head(self.key)["last_modified"]

    def copy_to(self, target: BucketPath) -> None:
        """Copy an object on the server."""
        with _one_line(target):
            self.client.copy(self.key, target.key)

    def check(self) -> None:
        """:raises BucketError: the bucket cannot be reached or listed; known within seconds"""
        with _one_line(self):
            any(_client(self.root, patient=False).list(self.key, chunk_size=1))

    def pinned(self) -> Self:
        """This place as it is now: what moves on the Hub is held to its commit.

        :raises BucketError: it cannot be reached
        """
        self.check()
        return self

    def check_writable(self) -> None:
        """:raises BucketError: a store cannot be made here"""
        self.check()

    def files(self) -> dict[str, int]:
        """Bytes of every object beneath, by its name relative to this place."""
        with _one_line(self):
            found = [entry for batch in self.client.list(self.key) for entry in batch]
        return {entry["path"].removeprefix(self.key + "/"): entry["size"] for entry in found}


def bucket_path(url: str) -> BucketPath:
    """The place that a URL names; nothing is looked up.

    :raises DatagenError: it is not of a bucket, or names nothing in it
    """
    import obstore
    from obstore.exceptions import BaseError

    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.rstrip("/").partition("/")
    root = f"{scheme}://{bucket}"
    try:
        known = obstore.parse_scheme(root) in ("s3", "gcs", "azure") and not scheme.startswith("http")
    except BaseError:
        known = False
    if not known or not bucket:
        raise DatagenError(
            f"{url} is no place for a store; allowed: a path, s3://BUCKET/NAME, gs://..., az://... and, to read, hf://datasets/ORG/NAME"
        )
    if not key:
        raise DatagenError(
            f"{url} names no directory to make; give a name in the bucket, such as {scheme}://{bucket}/store.zarr"
        )
    check_key(url, key)
    return BucketPath(root, key, _client(root))


def _tag(found: Mapping[str, Any]) -> UpdateVersion:
    """What tells this writing of an object from any other: S3 and Azure look at ``e_tag``, Google at ``version``."""
    tag: UpdateVersion = {}
    if found["e_tag"]:
        tag["e_tag"] = found["e_tag"]
    if found["version"]:
        tag["version"] = found["version"]
    return tag


def check_key(text: str, key: str) -> None:
    """:raises DatagenError: a URL's part beneath its root is no plain name"""
    if re.search(r"[?#%*\\\x00-\x1f]", key) or {"", ".", ".."} & set(key.split("/")):
        raise DatagenError(
            f"{text}: names in a bucket may hold no ?, #, %, *, backslash, empty part, . or ..; give another"
        )


def _client(url: str, patient: bool = True) -> ObjectStore:
    """A connection with the environment's settings; obstore's defaults ride out a server's bad minutes."""
    from obstore.store import from_url

    hasty: dict[str, Any] = {"retry_config": {"max_retries": 1, "retry_timeout": timedelta(seconds=3)}}
    with _one_line(url):
        return from_url(url, **({} if patient else hasty))


@contextmanager
def _one_line(where: object) -> Iterator[None]:
    """What obstore raises inside becomes one line.

    :raises FileNotFoundError: there is no such object
    :raises BucketError: anything else
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (BaseError, FileNotFoundError) as error:
        text = str(error)
        if isinstance(error, FileNotFoundError) and not _NO_BUCKET.search(text):
            raise FileNotFoundError(f"{where} is not there") from None
        if isinstance(error, AlreadyExistsError | PreconditionError):
            raise ConditionError(f"{where} is not what it was a moment ago") from None
        raise BucketError(
            f"{where}: {_reason(text, _HUB_REASONS if str(where).startswith('hf://') else _REASONS)}"
        ) from None


_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_REASONS = {  # what obstore's text says, and what that means
    _NO_BUCKET: "there is no such bucket; make it first, or give another",
    re.compile(r"169\.254\.|Must be specified|No credentials", re.IGNORECASE): "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the like of that cloud",
    re.compile(r"Unauthorized|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied"): "access is denied; check the credentials, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the bucket's permissions",
    re.compile("BadScheme"): "the endpoint has no TLS; set AWS_ALLOW_HTTP=true if that is meant",
    re.compile("error sending request|operation timed out|dns error"): "the server cannot be reached; check the network and AWS_ENDPOINT_URL",
}  # fmt: skip
LOG_IN = "log in with hf auth login, or set HF_TOKEN to a token that may"
_HUB_REASONS = {
    re.compile(r"Unauthorized|Forbidden"): f"access is denied; {LOG_IN} read it",
    re.compile("Too Many Requests"): "the Hub has had too many requests; try again in some minutes",
    re.compile("error sending request|operation timed out|dns error"): "the Hub cannot be reached; check the network and HF_ENDPOINT",
}  # fmt: skip


def _reason(text: str, reasons: Mapping[re.Pattern[str], str]) -> str:
    for pattern, reason in reasons.items():
        if pattern.search(text):
            return reason
    message = re.search(r"<Message>(.*?)</Message>", text)
    return message[1] if message else re.sub(r"\?\S+", "", text.partition("\n")[0])  # what signs a URL is a secret


def one_line(where: object) -> Any:
    """A context in which what a bucket's library raises becomes a :class:`BucketError`; nothing for a file system."""
    return nullcontext() if isinstance(where, Path) else _one_line(where)
