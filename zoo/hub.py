"""Models on the Hugging Face Hub: ``hf:org/repo[/folder][@revision]`` to a local directory."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.errors import ZooError


def fetch(address: str) -> Path:
    """Directory of a model, downloaded unless the cache has it.

    :param address: ``hf:org/repo``, with the model in the repository's root, or ``hf:org/repo/folder``; ``@revision`` is a branch, tag or commit
    :raises ZooError: no such repository, revision or folder; or no connection
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?", address)
    if match is None:
        raise ZooError(f"{address!r} is no address; give hf:org/repo, hf:org/repo/folder or hf:org/repo@revision")
    repo, folder, revision = match[1], match[2].lstrip("/"), match[3]
    patterns = [f"{folder}/*" if folder else "*", "index.json"]
    try:
        root = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except RevisionNotFoundError:
        raise ZooError(f"{repo} has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise ZooError(f"there is no repository {repo}, or it is private; see hf auth login") from None
    except LocalEntryNotFoundError:
        raise ZooError(f"{address} is not in the cache and the Hub cannot be reached") from None
    except (HfHubHTTPError, OSError) as error:
        raise ZooError(f"cannot get {address}: {str(error).splitlines()[0]}") from None
    path = root / folder
    if not (path / "config.json").is_file():
        raise ZooError(
            f"{address} holds no model: it has no config.json"
            + ("" if folder else "; name a folder, hf:org/repo/folder")
        )
    return path
