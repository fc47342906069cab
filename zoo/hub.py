"""Models from the Hugging Face Hub, file by file: only the four that a model has and its parts, every byte held to a record.

The client looks only at sizes. Here the SHA-256 of a file is taken each time, from the cache or from the net, and compared with what the
package knows of the commit, or else with the repository's own ``manifest.json``.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from zoo.errors import ZooError
from zoo.hub_errors import AbsentError, explained, http_error, status
from zoo.publication import MANIFEST, Family, FileRecord, ModelRecord, Publication, parse, publications
from zoo.registry import CONFIG_FILE, FILES, WEIGHTS_FILE, read_config, sha256

MANIFEST_BYTES = 1 << 22  # at most
_ADDRESS = re.compile(r"hf:([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Source:
    """How models of the Hub are come by.

    ``revision``: branch, tag or commit, in place of the one on record; ``cache_dir``: in place of the client's own cache;
    ``local_files_only``: never ask the Hub.
    """

    revision: str | None = None
    cache_dir: Path | None = None
    local_files_only: bool = False


def fetch(address: str, source: Source) -> tuple[Path, dict[str, str] | None]:
    """Directory of a model at an address, and the digests of its files where they are on record; downloaded unless the cache has it.

    :param address: ``hf:org/repo``, with the model in the repository's root, or ``hf:org/repo/folder``; ``@revision`` is a branch, a tag or a
        commit
    :raises ZooError: no such repository, revision or folder; no connection; or files that are not what the record says
    """
    repo, folder, revision = _parts(address, source)
    config = f"{folder}/{CONFIG_FILE}" if folder else CONFIG_FILE
    try:
        held = _download(repo, config, revision, source, None, FILES[CONFIG_FILE])  # the cache then knows the revision
    except AbsentError:
        told = f"{address} holds no model: it has no {CONFIG_FILE}; name a folder, hf:{repo}/FOLDER"
        raise ZooError(told + _told_folders(repo, revision, source)) from None
    commit = held.parents[config.count("/")].name
    record = _record(repo, commit, folder, source)
    return _files(repo, commit, folder, record, source), None if record is None else record.digests


def fetch_published(name: str, publication: Publication, source: Source) -> tuple[Path, dict[str, str] | None]:
    """Directory of a published model and the digests of its files; downloaded unless the cache has it.

    :raises ZooError: as :func:`fetch`
    """
    record = publication.family.models[name]
    if source.revision not in (None, publication.commit):
        return fetch(f"hf:{publication.repo}/{record.folder}", source)
    return _files(publication.repo, publication.commit, record.folder, record, source), record.digests


def is_cached(publication: Publication, name: str, cache_dir: Path | None = None) -> bool:
    """Whether all files of a published model are in the cache, unchecked."""
    from huggingface_hub import try_to_load_from_cache

    record = publication.family.models[name]
    files = [*(f"{record.folder}/{file}" for file in FILES), *record.parts]
    found = [try_to_load_from_cache(publication.repo, file, cache_dir, publication.commit) for file in files]
    return all(isinstance(path, str) for path in found)


def _parts(address: str, source: Source) -> tuple[str, str, str | None]:
    """Repository, folder and revision of an address."""
    match = _ADDRESS.fullmatch(address)
    if match is None or {".", ".."} & set(re.split("[/:@]", address)):
        raise ZooError(f"{address!r} is no address; give hf:org/repo, hf:org/repo/folder or hf:org/repo@revision")
    if match[3] and source.revision not in (None, match[3]):
        raise ZooError(f"{address} has a revision already, and {source.revision!r} is another; give one of them")
    if source.revision is not None and not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", source.revision):
        raise ZooError(f"{source.revision!r} is no revision; give a branch, a tag or a commit")
    return match[1], match[2].lstrip("/"), match[3] or source.revision


def _files(repo: str, commit: str, folder: str, record: ModelRecord | None, source: Source) -> Path:
    """Directory that holds the four files of a model, each checked, as its parts beside the directory are."""
    held = [
        get(repo, f"{folder}/{name}" if folder else name, commit, source, None if record is None else record.files[name], most)
        for name, most in FILES.items()
    ]  # fmt: skip
    model = held[0].parent
    parts = dict.fromkeys(read_config(model)["parts"]) if record is None else record.parts
    for name, known in parts.items():
        get(repo, str(PurePosixPath(folder).parent / name), commit, source, known, FILES[WEIGHTS_FILE])
    return model


def _record(repo: str, commit: str, folder: str, source: Source) -> ModelRecord | None:
    """What is known of the model in a folder: by this package, else by the repository itself; None if there is no manifest."""
    known = [found.family for found in publications() if (found.repo, found.commit) == (repo, commit)]
    family = known[0] if known else manifest(repo, commit, source)
    if family is None:
        return None
    found = family.in_folder(folder)
    if found is None:
        known_not = folder or "a model in its root"
        raise ZooError(f"{MANIFEST} of {repo} knows nothing of {known_not}; it has {_folders(family)}")
    return found


def _told_folders(repo: str, revision: str | None, source: Source) -> str:
    """The folders of a repository's manifest in words, if there is one."""
    try:
        family = manifest(repo, revision, source)
    except ZooError:
        family = None
    return "" if family is None else f", of {_folders(family)}"


def _folders(family: Family) -> str:
    return ", ".join(model.folder for model in family.models.values())


def manifest(repo: str, revision: str | None, source: Source) -> Family | None:
    """A repository's ``manifest.json``, or None where it has none.

    :raises ZooError: it is something else, or cannot be had
    """
    from huggingface_hub import try_to_load_from_cache

    known = try_to_load_from_cache(repo, MANIFEST, source.cache_dir, revision)
    if known is not None and not isinstance(known, str):  # known not to exist
        return None
    try:
        path = get(repo, MANIFEST, revision, source, most=MANIFEST_BYTES)
    except AbsentError:
        return None
    return parse(Family, path.read_text(encoding="utf-8", errors="replace"), f"{MANIFEST} of {repo}")


def get(
    repo: str, path: str, revision: str | None, source: Source, record: FileRecord | None = None, most: int = 1 << 40
) -> Path:
    """One file, from the cache or from the Hub, checked; a damaged copy in the cache is replaced once.

    :param record: what it must be; without one, it is held to the digest that the Hub names it by
    :param most: bytes that it may have
    :raises AbsentError: there is no such file
    :raises ZooError: it cannot be had, or is not what is on record
    """
    held = _download(repo, path, revision, source, record, most)
    if _sound(held, record):
        return held
    if _offline(source):
        raise ZooError(
            f"{path} of {repo} is damaged in the cache, and the Hub may not be asked; go online once to mend it"
        )
    _forget(held)
    held = _download(repo, path, revision, source, record, most, force_download=True)
    if not _sound(held, record):
        found = sha256(held)
        _forget(held)
        raise ZooError(_mismatch(repo, path, revision, f"SHA-256 {found}"))
    return held


def _download(
    repo: str, path: str, revision: str | None, source: Source, record: FileRecord | None, most: int, force_download: bool = False
) -> Path:  # fmt: skip
    """A file as it is in the cache or on the Hub, where its size is right."""
    from huggingface_hub import hf_hub_download

    options: dict[str, Any] = {
        "revision": revision, "cache_dir": source.cache_dir, "local_files_only": source.local_files_only, "force_download": force_download,
    }  # fmt: skip
    with explained(repo, path, revision):
        found = hf_hub_download(repo, path, **options, dry_run=True)
        size, cached = found.file_size, Path(found.local_path).is_file()
        if record is not None and not cached and size not in (None, record.bytes):
            raise ZooError(_mismatch(repo, path, revision, f"{size} bytes"))
        if size is not None and size > most and (record is None or not cached):
            raise ZooError(f"{path} of {repo} has {size} bytes; at most {most} are taken")
        if cached and found.commit_hash == revision:
            return Path(found.local_path)
        try:
            return Path(hf_hub_download(repo, path, **options))
        except http_error() as error:
            if status(error) is not None:
                raise
            return Path(hf_hub_download(repo, path, **options))  # broken off: early 1.x does not go on by itself


def _mismatch(repo: str, path: str, revision: str | None, found: str) -> str:
    at = f"{repo}@{revision[:12]}" if revision else repo
    return f"{path} of {at} is not the file on record: it has {found}; it was edited there, or broken on the way: do not use it"


def _sound(path: Path, record: FileRecord | None) -> bool:
    """Whether a file is what it should be: by its record, or by the digest that the cache names it by (of LFS, or of git)."""
    if record is not None:
        return path.stat().st_size == record.bytes and sha256(path) == record.sha256
    name = _blob(path).name
    if re.fullmatch(r"[0-9a-f]{64}", name):
        return sha256(path) == name
    return re.fullmatch(r"[0-9a-f]{40}", name) is None or git_digest(path.read_bytes()) == name


def git_digest(data: bytes) -> str:
    """Digest by which git knows a content, hexadecimal."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _forget(path: Path) -> None:
    """Take a file out of the cache."""
    blob = _blob(path)
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _blob(path: Path) -> Path:
    """What a file of the cache links to, which is named by the digest that the Hub gave; where there are no links, the file itself."""
    return path.parent / path.readlink() if path.is_symlink() else path


def _offline(source: Source) -> bool:
    from huggingface_hub import constants

    return source.local_files_only or constants.HF_HUB_OFFLINE
