"""Publishing a family on the Hub: checked before, in one commit, downloaded anew and compared, then put on record."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import hub, hub_errors, registry, results
from zoo.cards import Entry, card, picture
from zoo.checkpoint import check, load_model
from zoo.errors import ZooError
from zoo.files import put, require_place
from zoo.hub import Source
from zoo.names import find
from zoo.publication import (
    CARD,
    DATASETS,
    MANIFEST,
    PICTURE,
    Family,
    FileRecord,
    ModelRecord,
    Publication,
    read,
    to_json,
)
from zoo.registry import FILES, read_config

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile


@dataclass(frozen=True)
class Draft:
    """What a family's repository is to hold: files by their path there, as they lie here or as they were made."""

    family: Family
    files: Mapping[str, Path | bytes]

    @property
    def card(self) -> str:
        """Text of the model card."""
        return content_of(self.files[CARD]).decode()

    @property
    def records(self) -> dict[str, FileRecord]:
        """Size and digest of every file."""
        return {**self.family.files, MANIFEST: _record(self.files[MANIFEST])}


@dataclass(frozen=True)
class Outcome:
    """What publishing came to."""

    publication: Publication
    manifest: Path
    changed: bool  # on the Hub, or on record


def draft(family: str, repo: str, collection: Path) -> Draft:
    """Put together what is to be published, each model checked: golden vectors replayed, results of the very weights.

    :param family: ``<family>-<dataset>``, in any spelling of :mod:`zoo.names`: the models of one name but for the rate
    :param repo: ``ORG/name``, for the card
    :param collection: directory of models
    :raises ZooError: no such family, or a model that was not evaluated
    :raises CheckError: a model does not replay its golden vectors
    """
    family, members = _members(family, collection)
    entries = [_entry(path, registry.read_index(collection).get(path.name)) for path in members]
    pages = {CARD: card(family, repo, entries, _data_manifests(entries)).encode(), PICTURE: picture(entries)}
    models = {
        entry.name: ModelRecord(
            folder=entry.folder, files={name: _record(entry.path / name) for name in FILES},
            parts={part.name: _record(part) for part in registry.parts(entry.path)},
            parameters=entry.results["parameters"], nmse=results.summary(dict(entry.results)),
        )
        for entry in entries
    }  # fmt: skip
    made = Family(family=family, models=models, pages={name: _record(page) for name, page in pages.items()})
    own = {f"{entry.folder}/{name}": entry.path / name for entry in entries for name in FILES}
    shared = {part.name: part for entry in entries for part in registry.parts(entry.path)}
    return Draft(made, {**own, **shared, **pages, MANIFEST: to_json(made).encode()})


def publish(drafted: Draft, repo: str, *, tag: str | None = None, private: bool = False, manifests: Path) -> Outcome:
    """Publish a family: one commit, the tag, a download into a fresh cache that must give the same, then the record.

    The same again changes nothing.

    :param tag: of the commit
    :param private: create the repository as a private one
    :param manifests: directory for the record, ``<family>.json``
    :raises ZooError: no token, or one that may not write there; a repository that holds something else; a tag at another commit; no
        connection; or a download that is not what was sent
    """
    from huggingface_hub import HfApi, get_token

    place = manifests / f"{drafted.family.family}.json"
    require_place(place)
    before = read(place)
    if get_token() is None:
        raise ZooError("there is no token to publish with; hf auth login, or set HF_TOKEN")
    api = HfApi()
    head = _head(api, repo, private)
    fresh, stale = _changes(api, repo, drafted, head)
    commit = head
    if not (fresh or stale) and before is not None and (before.repo, before.family) == (repo, drafted.family):
        commit, tag = before.commit, tag or before.tag
    tagging = tag is not None and _is_free(api, repo, tag, None if fresh or stale else commit)
    if fresh or stale:
        commit = _commit(api, repo, drafted, fresh, stale, head)
    if tag is not None and tagging:
        with _writing(api, repo):
            api.create_tag(repo, tag=tag, revision=commit)
    made = Publication(repo=repo, commit=commit, tag=tag, manifest=drafted.records[MANIFEST], family=drafted.family)
    try:
        verify(made)
    except ZooError as error:
        raise ZooError(
            f"what comes back from {repo}@{commit} is not what was sent, and not put on record: {error}"
        ) from None
    if made != before:
        put(place, to_json(made))
    return Outcome(made, place, changed=made != before or bool(fresh or stale) or tagging)


def verify(publication: Publication) -> None:
    """Download everything into a fresh cache, at the commit; hold each file to its digest and each model to its golden vectors.

    :raises ZooError: something there is not what was sent
    """
    repo, commit = publication.repo, publication.commit
    with tempfile.TemporaryDirectory() as directory:
        source = Source(cache_dir=Path(directory))
        for path, record in {**publication.family.pages, MANIFEST: publication.manifest}.items():
            hub.get(repo, path, commit, source, record)
        for name in publication.family.models:
            model, digests = hub.fetch_published(name, publication, source)
            check(model, load_model(model, digests))


# before ----------------------------------------------------------------------------------------------------------------------


def _members(family: str, collection: Path) -> tuple[str, list[Path]]:
    """A family in its own spelling, and the directories of its models by rate."""
    if not collection.is_dir():
        raise ZooError(f"there is no directory {collection}; give --from the directory of a collection of models")
    models = [path for path in registry.models(collection) if "-" in path.name]
    families = sorted({path.name.rpartition("-")[0] for path in models})
    family = find(family, families)
    found = [path for path in models if path.name.rpartition("-")[0] == family]
    if not found:
        raise ZooError(f"{collection} has no family {family!r}; it has {', '.join(families) or 'no models'}")
    return family, sorted(found, key=lambda path: registry.rate_of(path.name))


def _entry(path: Path, digests: Mapping[str, str] | None) -> Entry:
    config = read_config(path)
    if config["name"] != path.name:
        raise ZooError(f"{path} holds the model {config['name']}; name the directory so")
    check(path, load_model(path, digests))
    found = results.read(path)
    if found is None:
        raise ZooError(f"{path} was not evaluated: it has no results.json; zoo eval {path} --data STORE makes one")
    if (found["model"], found.get("weights_sha256")) != (path.name, config["weights_sha256"]):
        raise ZooError(f"results.json of {path} is of other weights; zoo eval {path} --data STORE makes it anew")
    return Entry(path.name, path.name.rpartition("-")[2], path, config, found)


def _data_manifests(entries: list[Entry]) -> dict[str, str]:
    """Digests of the released manifests of the models' data sets, those of the very recipe."""
    found = {}
    for entry in entries:
        for data in (entry.config.get("dataset") or entry.results["data"], entry.results["data"]):
            path = DATASETS / f"{data['name']}.json"
            released = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if released.get("recipe_digest") == data["recipe_digest"]:
                found[data["name"]] = str(released["digest"])
    return found


def content_of(content: Path | bytes) -> bytes:
    """Bytes of a file of a draft."""
    return content if isinstance(content, bytes) else content.read_bytes()


def _record(content: Path | bytes) -> FileRecord:
    if isinstance(content, bytes):
        return FileRecord(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    return FileRecord(sha256=registry.sha256(content), bytes=content.stat().st_size)


# on the Hub ------------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _writing(api: HfApi, repo: str) -> Iterator[None]:
    """:func:`zoo.hub_errors.explained`, for what takes the right to write."""
    with hub_errors.explained(repo):
        try:
            yield
        except Exception as error:
            if hub_errors.status(error) == 403:
                raise ZooError(_forbidden(api, repo)) from None
            if hub_errors.status(error) in (409, 412):
                raise ZooError(f"somebody else changed {repo} meanwhile; look at it, then publish again") from None
            raise


def _forbidden(api: HfApi, repo: str) -> str:
    account = api.whoami()
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        return f"the token may only read; make one that may write to {repo}, then hf auth login"
    return f"the token of {account['name']} may not write to {repo}; give a repository of your own with --repo, or ask for the right"


def _head(api: HfApi, repo: str, private: bool) -> str:
    """Commit that branch main is at; of a new repository, if there is none."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    with _writing(api, repo):
        try:
            info = api.repo_info(repo)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            api.create_repo(repo, private=private or None)
            info = api.repo_info(repo)
    if private and not info.private:
        raise ZooError(f"{repo} is public already; make it private in its settings, or leave out --private")
    return str(info.sha)


def _changes(api: HfApi, repo: str, drafted: Draft, commit: str) -> tuple[list[str], list[str]]:
    """Files that a commit lacks or has otherwise, and files of an earlier publication of the family that it has no more.

    :raises ZooError: the repository holds something else
    """
    from huggingface_hub.hf_api import RepoFile

    with hub_errors.explained(repo):
        tree = api.list_repo_tree(repo, revision=commit, recursive=True)
        there = {file.path: file for file in tree if isinstance(file, RepoFile)}
    before = hub.manifest(repo, commit, Source()) if MANIFEST in there else None
    if there.keys() - {".gitattributes"} and (before is None or before.family != drafted.family.family):
        what = f"the family {before.family}" if before else "something else"
        raise ZooError(f"{repo} holds {what}; give {drafted.family.family} a repository of its own with --repo")
    records = drafted.records
    fresh = [path for path, record in records.items() if not _same(there.get(path), record, drafted.files[path])]
    return fresh, sorted(there.keys() & (before.files if before else {}).keys() - records.keys())


def _same(there: RepoFile | None, record: FileRecord, content: Path | bytes) -> bool:
    if there is None:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == record.sha256)
    return bool(there.size == record.bytes and there.blob_id == hub.git_digest(content_of(content)))


def _is_free(api: HfApi, repo: str, tag: str, commit: str | None) -> bool:
    """Whether there is no such tag yet.

    :param commit: where the tag may be already
    :raises ZooError: it is at another commit
    """
    with hub_errors.explained(repo):
        tags = {known.name: known.target_commit for known in api.list_repo_refs(repo).tags}
    if tags.get(tag, commit) != commit:
        raise ZooError(f"{repo} has a tag {tag} already, at another commit, {tags[tag]}; give another --tag")
    return tag not in tags


def _commit(api: HfApi, repo: str, drafted: Draft, fresh: list[str], stale: list[str], parent: str) -> str:
    """Send what is new and take away what is stale, at once or not at all."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    added = [
        CommitOperationAdd(path, content if isinstance(content, bytes) else str(content))
        for path, content in drafted.files.items()
        if path in fresh
    ]
    removed = [CommitOperationDelete(path) for path in stale]
    message = f"{drafted.family.family}: {', '.join(model.folder for model in drafted.family.models.values())}"
    with _writing(api, repo):
        return str(api.create_commit(repo, [*added, *removed], commit_message=message, parent_commit=parent).oid)
