"""Stores that lie elsewhere: in buckets, and in data sets on the Hugging Face Hub, read in place."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zarr.storage import ObjectStore

_ON_HUB = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.%-]+))?(?:/(?P<store>\w[\w.-]*(?:/\w[\w.-]*)*))?"
)


def connect(url: str) -> ObjectStore[Any]:
    """What zarr takes for a URL; credentials and endpoint are the environment's.

    :param url: of a bucket, or one of the Hub as :func:`pinned` gives it
    """
    from obstore.store import HTTPStore, from_url
    from zarr.storage import ObjectStore

    retries: Any = {"max_retries": 3}
    match = _ON_HUB.fullmatch(url)
    if match is None:
        return ObjectStore(from_url(url.rstrip("/"), retry_config=retries), read_only=True)

    from huggingface_hub import HfApi
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    # ranges of bytes, with the client's token, which goes to the endpoint alone
    address = f"{HfApi().endpoint}/datasets/{match['repo']}/resolve/{match['revision']}/{match['store']}"
    options: Any = {"allow_http": True, "default_headers": build_hf_headers(), "timeout": timedelta(minutes=10)}
    store = HTTPStore.from_url(address, client_options=options, retry_config=retries)
    return ObjectStore(store, read_only=True)


def pinned(url: str) -> str:
    """A URL as it is to be read: that of a store on the Hub names the commit that its branch or tag points to now.

    :param url: ``hf://datasets/org/name[@revision][/store.zarr]``, or any other, which is left as it is
    :raises ZooError: no such data set or revision, or the Hub cannot be reached
    """
    if not url.startswith("hf://"):
        return url
    match = _ON_HUB.fullmatch(url.rstrip("/"))
    if match is None:
        raise ZooError(f"{url} is no store on the Hub; give hf://datasets/org/name@revision/store.zarr")
    sha = _commit(match["repo"], unquote(match["revision"] or "") or None)
    return f"hf://datasets/{match['repo']}@{sha}/{match['store'] or 'store.zarr'}"


def _commit(repo: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi

    from zoo.hub_errors import explained

    with explained(repo, revision=revision):
        return HfApi().repo_info(repo, repo_type="dataset", revision=revision).sha
