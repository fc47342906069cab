"""Finished stores to the Hugging Face Hub and back, every byte held to its digest on both ways.

A data set's repository has the store's files as they are beneath ``store.zarr/``, its manifest, its description in Croissant, and a card
with a picture. It changes by whole commits.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from datagen import report
from datagen import store as stores
from datagen.bucket import LOG_IN, BucketPath
from datagen.card import card
from datagen.croissant import croissant
from datagen.errors import DatagenError, VerificationError
from datagen.execute import ELSEWHERE, check_disk, occupant, resolve, resumable
from datagen.hub import KIND, STORE, Digests, HubError, api, commit, hub_errors, parse_address, tree
from datagen.ledger import Ledger
from datagen.manifest import Manifest, ShardRecord
from datagen.place import put_atomically, sizes
from datagen.progress import progress_bar
from datagen.verification import verify

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

MANIFEST, DESCRIPTION, CARD, PICTURE = "manifest.json", "croissant.json", "README.md", "samples.png"
LARGEST_MANIFEST = 256 << 20  # bytes
TRANSFERS = 4  # files at a time


# publish ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A file of the repository: what is in it, or where it lies."""

    content: Path | bytes
    digests: Digests


@dataclass(frozen=True)
class Published:
    """What :func:`publish` did."""

    repo: str
    files: dict[str, int]  # bytes of every file of the repository that is ours
    commit: str | None  # where they are now; None for a rehearsal
    changed: bool  # whether a commit was needed


def publish(
    store: stores.Store,
    repo: str,
    *,
    private: bool = False,
    tag: str | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: bool = False,
) -> Published:
    """Put a finished store on the Hub, as a data set of its own, in one commit. Done twice, it changes nothing.

    :param store: an opened store in a directory; it is verified first
    :param repo: ``ORG/NAME``; made if it is not there
    :param private: make it so that only its owners see it
    :param tag: name for the commit
    :param force: replace another data set that the repository holds; it stays in the history
    :param dry_run: find out what would be published, and ask nobody
    :raises VerificationError: the store is not what its manifest says, or the Hub has other bytes than were sent
    :raises DatagenError: no such repository, a tag in use, no token that may write, the Hub cannot be reached
    """
    from huggingface_hub import get_token

    repo, revision = parse_address(repo)
    if revision is not None:
        raise DatagenError(
            f"{repo}@{revision}: a data set is published to branch main; give ORG/NAME, and --tag for a name of the commit"
        )
    if not dry_run and get_token() is None:
        raise HubError(f"no token for {repo}; {LOG_IN} write to it")
    pieces = _pieces(store, repo, progress)
    files = {name: piece.digests.size for name, piece in pieces.items()}
    if dry_run:
        return Published(repo, files, None, changed=False)
    client = api()
    with hub_errors(repo), _bars(progress):
        head = _prepare(client, repo, private)
        old = tree(repo, head)
        if MANIFEST in old and not pieces[MANIFEST].digests.match(old[MANIFEST]) and not force:
            raise DatagenError(
                f"{repo} holds another data set ({MANIFEST} differs); give another --repo, or --force to replace it"
            )
        wrong, stale = _differing(pieces, old), _stale(pieces, old)
        tags = {ref.name: ref.target_commit for ref in client.list_repo_refs(repo, repo_type=KIND).tags}
        if tag in tags and (wrong or stale or tags[tag] != head):
            raise DatagenError(f"{repo} has a tag {tag} already, at {tags[tag]}; give another --tag")
        sha = _commit(client, repo, pieces, wrong, stale, head, store.manifest) if wrong or stale else head
        found = tree(repo, sha)
        if bad := _differing(pieces, found) + _stale(pieces, found):
            raise VerificationError(
                f"{repo}@{sha} does not have the bytes that were sent: {bad[0]} and {len(bad) - 1} more; give the same command again"
            )
        if tag is not None and tag not in tags:
            client.create_tag(repo, tag=tag, revision=sha, repo_type=KIND)
    return Published(repo, files, sha, bool(wrong or stale))


def _pieces(store: stores.Store, repo: str, progress: bool) -> dict[str, Piece]:
    """Every file of the repository; digests are taken before the store is verified, so that what is sent is what was verified."""
    if isinstance(store.path, str) and "://" in store.path:
        raise DatagenError(f"{store.path} is no directory; datagen publish takes a store that lies on a disk")
    path, manifest = Path(store.path), store.manifest
    there = sizes(path)
    pieces = {}
    with progress_bar(sum(there.values()), "digests", "B", progress) as advance:
        for name in sorted(there):
            try:
                pieces[f"{STORE}/{name}"] = Piece(path / name, Digests.of(path / name, advance))
            except OSError as error:
                raise DatagenError(f"cannot read {path / name}: {error.strerror}; mend it first") from None
    if bad := verify(store, progress=progress).bad:
        raise VerificationError(f"{path}: {bad[0]}; nothing was published, see datagen verify")
    samples = report.first_samples(store)
    picture = io.BytesIO()
    report.plot(store, samples, picture)
    text = card(manifest, report.summary(store, samples), samples, repo, STORE, PICTURE)
    made = {
        MANIFEST: manifest.to_json().encode(), CARD: text.encode(), PICTURE: picture.getvalue(),
        DESCRIPTION: (json.dumps(croissant(manifest, MANIFEST), indent=1) + "\n").encode(),
    }  # fmt: skip
    return {**pieces, **{name: Piece(content, Digests.of(content)) for name, content in made.items()}}


def _prepare(client: HfApi, repo: str, private: bool) -> str:
    """See that the repository is there; make it if need be.

    :returns: the newest commit
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        public = client.repo_info(repo, repo_type=KIND).private is False
    except RepositoryNotFoundError:
        client.create_repo(repo, repo_type=KIND, private=private or None, exist_ok=True)
    else:
        if private and public:
            raise DatagenError(f"{repo} is there already and public; give another --repo, or leave --private out")
    return commit(repo, None)


def _differing(pieces: Mapping[str, Piece], remote: Mapping[str, RepoFile]) -> list[str]:
    return [name for name, piece in pieces.items() if not piece.digests.match(remote.get(name))]


def _stale(pieces: Mapping[str, Piece], remote: Mapping[str, RepoFile]) -> list[str]:
    return [name for name in remote if name.startswith(f"{STORE}/") and name not in pieces]


def _commit(
    client: HfApi,
    repo: str,
    pieces: Mapping[str, Piece],
    wrong: list[str],
    stale: list[str],
    head: str,
    manifest: Manifest,
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in stale]
    operations += [CommitOperationAdd(path_in_repo=name, path_or_fileobj=pieces[name].content) for name in wrong]
    message = f"{manifest.name}, {manifest.digest}"
    done = client.create_commit(repo, operations, commit_message=message, repo_type=KIND, parent_commit=head)
    return commit(repo, done.oid)


@contextmanager
def _bars(show: bool) -> Iterator[None]:
    """The client's own progress bars, shown or not."""
    from huggingface_hub import utils

    client: Any = utils
    if show or client.are_progress_bars_disabled():
        yield
        return
    client.disable_progress_bars()
    try:
        yield
    finally:
        client.enable_progress_bars()


def record(file: Path, name: str, published: Published, digest: str) -> None:
    """Note in a JSON file where a data set was published.

    :raises DatagenError: the file cannot be written, or is no such file
    """
    known = read_records(file)
    known[name] = {"repo": published.repo, "commit": published.commit, "digest": digest}
    try:
        put_atomically(file, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    except OSError as error:
        raise DatagenError(f"cannot write {file}: {error.strerror or error}; give --record a file") from None


def read_records(file: Path) -> dict[str, Any]:
    """What :func:`record` has noted so far; nothing where there is no file yet.

    :raises DatagenError: it is no such file, or there is no such directory
    """
    if not file.parent.is_dir():
        raise DatagenError(f"the directory {file.parent} does not exist; make it first")
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise DatagenError(f"cannot read {file} ({type(error).__name__}); give --record a file of its own") from None
    if not isinstance(found, dict):
        raise DatagenError(f"{file} is not what --record writes; give a file of its own")
    return found


# pull ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pulled:
    """What :func:`pull` did."""

    store: stores.Store
    repo: str
    commit: str
    existed: bool  # the store was there already, and nothing was done


def pull(
    address: str,
    out: str | os.PathLike[str] | BucketPath,
    *,
    manifest: Manifest | None = None,
    force: bool = False,
    progress: bool = False,
) -> Pulled:
    """Bring a data set from the Hub, at one commit. Every file and every sample is verified before the store is put in place.

    Given again after an interruption it goes on: the files that are whole are kept.

    :param address: ``ORG/NAME`` or ``ORG/NAME@REVISION``
    :param out: directory of the store; what has come so far lies beside it in ``OUT.wip``
    :param manifest: released manifest that the store should be a making of
    :param force: replace what is at ``out``, once the new store is complete
    :raises VerificationError: the Hub's bytes are not those that it promised, or not those of the manifest
    :raises DatagenError: no such data set, something else at ``out``, no room, the Hub cannot be reached
    :raises Interrupted: Ctrl-C; finished shards are kept
    """
    repo, revision = parse_address(address)
    path = resolve(out)
    if isinstance(path, BucketPath):
        raise DatagenError(f"{path} is no directory; datagen pull takes an --out on a disk")
    sha = commit(repo, revision)
    files = tree(repo, sha)
    promised = _promised(repo, sha, files)
    ledger = Ledger(path, {"data set": repo})
    if not ledger.wip.exists() and (store := _already(ledger, promised, manifest, force)) is not None:
        return Pulled(store, repo, sha, existed=True)
    transfer = _Transfer(repo, sha, files, ledger, promised)
    with resumable(ledger, len(promised.shards)), ledger.locked() as assure:
        if (store := _already(ledger, promised, manifest, force)) is not None:
            ledger.tidy()
            return Pulled(store, repo, sha, existed=True)
        ledger.start(force)
        transfer.run(progress)
        try:
            _check(transfer.data, promised, manifest, f"{repo}@{sha}", progress)
        except VerificationError:
            ledger.remove()
            raise
        ledger.publish(force, assure)
    return Pulled(stores.open_store(path), repo, sha, existed=False)


def _promised(repo: str, sha: str, files: Mapping[str, RepoFile]) -> Manifest:
    """The manifest in the repository, beside which lie all the files of its store and no others.

    :raises VerificationError: they do not
    """
    where = f"{repo}@{sha}"
    if MANIFEST not in files or files[MANIFEST].size > LARGEST_MANIFEST:
        raise DatagenError(
            f"{where} is no data set of datagen: it has no proper {MANIFEST}; give another, see datagen publish"
        )
    with TemporaryDirectory() as scratch:
        manifest = Manifest.load(_fetch(repo, sha, files[MANIFEST], Path(scratch)), f"{where}/{MANIFEST}")
    wanted = {f"{STORE}/{name}" for name in stores.files(manifest.plan)}
    there = {name for name in files if name.startswith(f"{STORE}/")}
    if missing := sorted(wanted - there):
        raise VerificationError(f"{where} lacks {missing[0]} and {len(missing) - 1} more files of {manifest.name}")
    if foreign := sorted(there - wanted):
        raise VerificationError(
            f"{where} holds {foreign[0][:200]!r}, which does not belong in a store; nothing was taken"
        )
    return manifest


def _already(ledger: Ledger, promised: Manifest, released: Manifest | None, force: bool) -> stores.Store | None:
    """The very store, if it is at its place and need not be fetched.

    :raises DatagenError: something else is there
    :raises VerificationError: it is there, but no making of the released manifest
    """
    store = occupant(ledger, force)
    if store is None:
        return None
    if store.manifest.digest != promised.digest:
        raise DatagenError(
            f"{ledger.out} holds another data set ({store.manifest.name}, {store.manifest.digest}); {ELSEWHERE}"
        )
    if released is not None and (bad := verify(store, released).bad):
        raise VerificationError(
            f"{ledger.out} was there already and is not {released.name}: {bad[0]}; --force fetches it anew"
        )
    return store


def _check(path: Path, promised: Manifest, released: Manifest | None, where: str, progress: bool) -> None:
    """:raises VerificationError: a fetched store is not what was promised, or not a making of the released manifest"""
    try:
        store = stores.open_store(path)
        if store.manifest != promised:
            raise VerificationError(f"its {MANIFEST} is not the one that its store carries")
        bad = verify(store, released, progress=progress).bad
    except DatagenError as error:
        raise VerificationError(f"{where}: {error}; nothing kept") from None
    if bad:
        raise VerificationError(f"{where} is not the data set that its manifest says: {bad[0]}; nothing kept")


class _Transfer:
    """The files of a store on their way into the work in progress beside its place.

    A file is moved there when it has the bytes that the Hub promised, so what lies there after an interruption is whole.
    """

    def __init__(self, repo: str, sha: str, files: Mapping[str, RepoFile], ledger: Ledger, manifest: Manifest) -> None:
        self.repo, self.sha, self.files, self.ledger, self.manifest = repo, sha, files, ledger, manifest
        assert isinstance(ledger.data, Path)
        self.data = ledger.data

    def run(self, progress: bool) -> None:
        """Fetch what is not there yet, whole shards one after the other, the root metadata last."""
        wanted = stores.files(self.manifest.plan)
        self._tidy(wanted)
        there = sizes(self.data)
        total = sum(self.files[f"{STORE}/{name}"].size for name in wanted)
        check_disk(self.ledger, total - sum(there.values()))
        with progress_bar(total, self.manifest.name, "B", progress) as advance, _bars(show=False):
            pool = ThreadPoolExecutor(TRANSFERS)
            try:
                list(pool.map(lambda shard: self._shard(shard, advance), self.manifest.shards))
                metadata = sorted((name for name in wanted if name.endswith("zarr.json")), key=len, reverse=True)
                list(pool.map(lambda name: self._file(name, advance), metadata))
            finally:
                pool.shutdown(cancel_futures=True)

    def _tidy(self, wanted: set[str]) -> None:
        """Drop what an interrupted run left of another commit."""
        self.data.mkdir(exist_ok=True)
        for name in set(sizes(self.data)) - wanted:
            (self.data / name).unlink()

    def _shard(self, shard: ShardRecord, advance: Callable[[int], object]) -> None:
        for array in shard.arrays:
            self._file(stores.shard_file(shard.shard, array), advance)
        self.ledger.record(shard)

    def _file(self, name: str, advance: Callable[[int], object]) -> None:
        remote, target = self.files[f"{STORE}/{name}"], self.data / name
        if not (target.is_file() and Digests.of(target).match(remote)):
            target.parent.mkdir(parents=True, exist_ok=True)
            assert isinstance(self.ledger.home, Path)
            fetched = _fetch(self.repo, self.sha, remote, self.ledger.home / "download")
            with fetched.open("rb") as handle:
                os.fsync(handle.fileno())
            fetched.replace(target)
        advance(remote.size)


def _fetch(repo: str, sha: str, remote: RepoFile, directory: Path) -> Path:
    """Download a file to a directory, beneath which it has its own name; a bad copy is fetched again once.

    :raises VerificationError: it has other bytes than the Hub promised
    """
    for again in (False, True):
        try:
            with hub_errors(repo):
                path = Path(
                    api().hf_hub_download(
                        repo, remote.path, repo_type=KIND, revision=sha, local_dir=directory, force_download=again
                    )
                )
        except OSError as error:
            if error.errno is not None:
                raise DatagenError(
                    f"cannot write {directory}: {error.strerror}; mend it, then the same again"
                ) from None
            continue  # the client found another size than it was told
        if Digests.of(path).match(remote):
            return path
        path.unlink()
    raise VerificationError(
        f"{repo}@{sha}: {remote.path} came with other bytes than the Hub promised, twice; try again later"
    )
