"""Data sets on the Hub: published, pulled and read in place by the real client, against our own server on loopback."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlcroissant
import numpy as np
import pytest

import datagen
from datagen import DatagenError, Interrupted, Manifest, Store, VerificationError, publishing
from datagen import hub as hubs
from datagen.bucket import BucketError, BucketPath
from datagen.card import size_category
from datagen.place import place, sizes
from datagen.publishing import publish, pull
from tests import hub_server
from tests.conftest import HUB, Cli, assert_one_line_error, in_process, small_recipe
from tests.hub_server import HubServer
from tests.test_execute import assert_same_samples
from tests.test_manifest import edited

REPO = "org/cdl-tiny"
CHUNK_BYTES = 256 * 4 * 32 * 8  # of 256 samples of the tiny recipe


def tiny_recipe(**changes: object) -> datagen.CDLRecipe:
    """Four antennas; more than one chunk in a shard, more than one shard."""
    return small_recipe(**{"antennas": 4, "train": 2000, "slots": 2, **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished store; tests must not change it."""
    return datagen.generate(tiny_recipe(), tmp_path_factory.mktemp("tiny") / "tiny.zarr", shard_samples=1024)


@pytest.fixture(autouse=True)
def server(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The server, where shards are large files as on the real one."""
    monkeypatch.setattr(hub_server, "REGULAR_BYTES", 100_000)
    hubs._tree.cache_clear()
    yield hub
    hubs._tree.cache_clear()


@pytest.fixture
def token(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A token that may write to :data:`REPO`, in the environment."""
    token = server.token("org")
    monkeypatch.setenv("HF_TOKEN", token)
    return token


@pytest.fixture(scope="module")
def published(tiny: Store) -> hub_server.Repository:
    """The repository of the tiny store, published once; tests must not change it."""
    HUB.start()
    HUB.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_server, "REGULAR_BYTES", 100_000)
        patch.setenv("HF_TOKEN", HUB.token("org"))
        publish(tiny, REPO)
    return HUB.repository(REPO, "dataset")


@pytest.fixture
def sha(published: hub_server.Repository, token: str) -> str:
    """Commit at which the tiny store is published."""
    HUB.repositories["dataset", REPO] = found = copy.deepcopy(published)
    return found.branches["main"]


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pictures be empty: to draw one takes longer than all the rest."""
    monkeypatch.setattr("datagen.report.plot", lambda *_: None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the entry point of ``datagen`` in this process, in a directory of the test's own."""
    return in_process("datagen", tmp_path, monkeypatch, capsys)


def remote(sha: str | None = None) -> dict[str, bytes]:
    """The repository's files at a commit, the newest if not given."""
    repository = HUB.repository(REPO, "dataset")
    return {name: file.data for name, file in repository.commits[sha or repository.branches["main"]].items()}


def fetched(pattern: str = ".*") -> list[str]:
    """Files that were downloaded so far."""
    return HUB.calls(rf"GET /datasets/{REPO}/resolve/.*{pattern}")


def assert_nothing_there(directory: Path, *names: str) -> None:
    """These are all the names in a directory, the client's cache apart."""
    assert sorted(set(os.listdir(directory)) - {"hub-cache"}) == sorted(names)


# publish ---------------------------------------------------------------------------------------------------------------------


def test_a_published_store_comes_back_bit_for_bit(tiny: Store, sha: str, tmp_path: Path) -> None:
    done = pull(REPO, tmp_path / "back.zarr")
    assert (done.commit, done.existed) == (sha, False)
    assert done.store.manifest == tiny.manifest
    assert_same_samples(done.store, tiny)
    there, here = Path(str(tiny.path)), tmp_path / "back.zarr"
    assert sizes(there) == sizes(here)
    assert all((there / name).read_bytes() == (here / name).read_bytes() for name in sizes(there))
    found = datagen.verify(datagen.open_store(here))
    assert (found.bad, found.identical) == ([], found.shards)
    assert_nothing_there(tmp_path, "back.zarr")


def test_what_is_in_the_repository(tiny: Store, sha: str) -> None:
    files = remote()
    store = {f"store.zarr/{name}" for name in sizes(Path(str(tiny.path)))}
    assert set(files) == store | {"manifest.json", "croissant.json", "README.md", "samples.png", ".gitattributes"}
    assert files["samples.png"].startswith(b"\x89PNG")
    assert Manifest.parse(json.loads(files["manifest.json"]), "m") == tiny.manifest
    repository = HUB.repository(REPO, "dataset")
    assert len(repository.commits) == 2  # the one it is made with, and ours
    assert repository.commits[sha]["store.zarr/train/X/c/0/0/0"].lfs
    card = files["README.md"].decode()
    head = card.split("---\n")[1]
    metadata = {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in head.splitlines()}
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["size_categories"] == ["1K<n<10K"]
    assert metadata["pretty_name"] == "cdl-c-fdd-v1"
    assert "zarr" in metadata["tags"]
    for words in (
        "| X | downlink CSI at the first symbol | 2000 | 40 | 4 angles × 32 delays | 1 |",
        f'datagen.open_store("hf://datasets/{REPO}/store.zarr")',
        f"datagen pull {REPO} --out cdl-c-fdd-v1.zarr",
        "datagen regenerate manifest.json --out cdl-c-fdd-v1.zarr",
        "| delay_spread_ns | 300.0 |",
        "| speed_mps | 5.0 |",
        tiny.manifest.digest,
        "mean delay [taps]",
        "![cdl-c-fdd-v1](samples.png)",
        "* 3GPP TR 38.901",
    ):
        assert words in card


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in mlcroissant and rdflib themselves
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_its_croissant_reads_its_manifest(tiny: Store, sha: str, tmp_path: Path) -> None:
    for name in ("croissant.json", "manifest.json"):
        (tmp_path / name).write_bytes(remote()[name])
    dataset = mlcroissant.Dataset(tmp_path / "croissant.json")
    assert not dataset.metadata.ctx.issues.errors
    assert len(list(dataset.records("shards"))) == len(tiny.manifest.shards)


def test_published_twice_nothing_changes(tiny: Store, token: str, sha: str, run: Cli) -> None:
    result = run("publish", str(tiny.path), "--repo", REPO, "--quiet", "--json")
    files = {name: len(data) for name, data in remote().items() if name != ".gitattributes"}
    assert json.loads(result.stdout) == {
        "repo": REPO, "commit": sha, "tag": None, "changed": False, "name": "cdl-c-fdd-v1", "digest": tiny.manifest.digest,
        "files": files, "bytes": sum(files.values()),
    }  # fmt: skip
    assert (
        f"{REPO}@{sha}: cdl-c-fdd-v1, already there, nothing changed"
        in run("publish", str(tiny.path), "--repo", REPO).stdout
    )
    assert HUB.calls("POST") == []
    assert len(HUB.repository(REPO, "dataset").commits) == 2
    assert publish(tiny, REPO, tag="v1").commit == sha
    assert HUB.repository(REPO, "dataset").tags == {"v1": sha}


@pytest.mark.usefixtures("no_picture")
def test_the_command_line_tags_and_records(tiny: Store, token: str, run: Cli, tmp_path: Path) -> None:
    (tmp_path / "hub.json").write_text('{"another": {}}')
    result = run("publish", str(tiny.path), "--repo", REPO, "--private", "--tag", "v1", "--record", "hub.json")
    assert result.returncode == 0, result.stderr
    repository = HUB.repository(REPO, "dataset")
    sha = repository.branches["main"]
    assert result.stdout.startswith(f"{REPO}@{sha}: cdl-c-fdd-v1, ")
    assert repository.private
    assert repository.tags == {"v1": sha}
    expected = {"repo": REPO, "commit": sha, "digest": tiny.manifest.digest}
    assert json.loads((tmp_path / "hub.json").read_text()) == {"another": {}, "cdl-c-fdd-v1": expected}
    again = run("publish", str(tiny.path), "--repo", REPO, "--tag", "v1")
    assert "nothing changed" in again.stdout


def test_a_dry_run_touches_nothing(tiny: Store, run: Cli, tmp_path: Path) -> None:
    result = run("publish", str(tiny.path), "--repo", REPO, "--dry-run", "--record", "hub.json", "--quiet")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    size = (Path(str(tiny.path)) / "train/X/c/0/0/0").stat().st_size
    assert f"{size:>12}  store.zarr/train/X/c/0/0/0" in lines
    assert lines[-1].endswith(f"for {REPO}; nothing sent (--dry-run)")
    facts = json.loads(run("publish", str(tiny.path), "--repo", REPO, "--dry-run", "--json", "--quiet").stdout)
    assert facts["commit"] is None
    assert len(facts["files"]) == len(lines) - 1
    assert HUB.requests == []
    assert_nothing_there(tmp_path)


def damage(path: Path, fault: str) -> None:
    if fault == "unfinished":
        root = json.loads((path / "zarr.json").read_text())
        root["attributes"]["complete"] = False
        (path / "zarr.json").write_text(json.dumps(root))
    elif fault == "flipped":
        data = bytearray((path / "train/Y/c/1/0/0").read_bytes())
        data[5000] ^= 1
        (path / "train/Y/c/1/0/0").write_bytes(bytes(data))
    elif fault == "foreign":
        (path / "notes.txt").write_text("hello")
    else:
        (path / "val/X/c/0/0/0").unlink()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("unfinished", 2, "is not complete"),
        ("flipped", 1, "train/Y/c/1/0/0 cannot be read"),
        ("foreign", 1, "notes.txt does not belong in a store"),
        ("missing", 1, "val/X/c/0/0/0 is missing; nothing was published, see datagen verify"),
    ],
)
def test_only_what_is_whole_is_published(
    tiny: Store, token: str, run: Cli, tmp_path: Path, fault: str, code: int, words: str
) -> None:
    shutil.copytree(str(tiny.path), tmp_path / "bad.zarr")
    damage(tmp_path / "bad.zarr", fault)
    assert_one_line_error(run("publish", "bad.zarr", "--repo", REPO), code, words)
    assert HUB.requests == []


def test_a_bucket_is_no_place_to_publish_from(sha: str) -> None:
    store = datagen.open_store(f"hf://datasets/{REPO}")
    with pytest.raises(DatagenError, match="takes a store that lies on a disk"):
        publish(store, "org/other")


@pytest.mark.usefixtures("no_picture")
def test_another_data_set_is_replaced_only_by_force(token: str, sha: str, tmp_path: Path, tiny: Store) -> None:
    other = datagen.generate(tiny_recipe(seed=8, train=300), tmp_path / "other.zarr", shard_samples=1024)
    with pytest.raises(DatagenError, match=rf"{REPO} holds another data set .*--force to replace it"):
        publish(other, REPO)
    assert HUB.repository(REPO, "dataset").branches["main"] == sha
    HUB.commit(REPO, {"LICENSE": b"mine"}, "dataset")
    done = publish(other, REPO, force=True)
    assert done.changed
    files = remote()
    assert {name for name in files if name.startswith("store.zarr/")} == {
        f"store.zarr/{name}" for name in sizes(tmp_path / "other.zarr")
    }
    assert files["LICENSE"] == b"mine"
    assert_same_samples(pull(REPO, tmp_path / "new.zarr").store, other)
    assert_same_samples(pull(f"{REPO}@{sha}", tmp_path / "old.zarr").store, tiny)


@pytest.mark.usefixtures("no_picture")
def test_tags_do_not_move(token: str, sha: str, tiny: Store, tmp_path: Path) -> None:
    HUB.tag(REPO, "v1", sha, "dataset")
    other = datagen.generate(tiny_recipe(seed=8, train=300), tmp_path / "other.zarr", shard_samples=1024)
    with pytest.raises(DatagenError, match=rf"has a tag v1 already, at {sha}; give another --tag"):
        publish(other, REPO, force=True, tag="v1")
    assert HUB.repository(REPO, "dataset").branches["main"] == sha


@pytest.mark.usefixtures("no_picture")
def test_a_public_repository_is_not_made_private(token: str, sha: str, tiny: Store) -> None:
    with pytest.raises(DatagenError, match="is there already and public"):
        publish(tiny, REPO, private=True)


@pytest.mark.usefixtures("no_picture")
def test_somebody_else_publishes_at_the_same_time(token: str, tiny: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = publishing._prepare

    def outrun(*arguments: Any) -> str:
        head = prepare(*arguments)
        HUB.commit(REPO, {"LICENSE": b"theirs"}, "dataset")
        return head

    monkeypatch.setattr(publishing, "_prepare", outrun)
    with pytest.raises(DatagenError, match="somebody else has just changed it; give the same command again"):
        publish(tiny, REPO)
    assert set(remote()) == {".gitattributes", "LICENSE"}


@pytest.mark.usefixtures("no_picture")
def test_the_hub_is_held_to_what_was_sent(token: str, tiny: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = hub_server._apply

    def lose_a_bit(key: str, value: dict[str, Any], files: dict[str, hub_server.File], *rest: Any) -> None:
        apply(key, value, files, *rest)
        if key == "lfsFile":
            files[value["path"]] = hub_server.File(b"\1" + files[value["path"]].data[1:], True)

    monkeypatch.setattr(hub_server, "_apply", lose_a_bit)
    with pytest.raises(VerificationError, match=r"does not have the bytes that were sent: store\.zarr/train/X/c/0/0/0"):
        publish(tiny, REPO, tag="v1")
    assert HUB.repository(REPO, "dataset").tags == {}


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize(
    ("role", "namespace", "words"),
    [
        (None, "org", "no token for org/cdl-tiny; log in with hf auth login"),
        ("read", "org", "the token may not do this; log in with hf auth login"),
        ("write", "somebody", "the token may not do this"),
        ("unknown", "org", "the Hub does not know the token"),
    ],
)
def test_tokens_that_may_not_write(
    server: HubServer,
    run: Cli,
    tiny: Store,
    monkeypatch: pytest.MonkeyPatch,
    role: str | None,
    namespace: str,
    words: str,
) -> None:
    token = server.token(namespace, role) if role in ("read", "write") else "hf_unknown" if role else None
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    result = run("publish", str(tiny.path), "--repo", REPO)
    assert_one_line_error(result, 2, words)
    assert not token or token not in result.stdout + result.stderr
    assert ("dataset", REPO) not in server.repositories


@pytest.mark.parametrize("token", ["hf_sécret", "hf_secret\x01"])
def test_malformed_tokens_are_not_shown(run: Cli, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    from zoo.data import Store as ZooStore
    from zoo.errors import ZooError

    monkeypatch.setenv("HF_TOKEN", token)
    for arguments in (("pull", REPO, "--out", "s.zarr"), ("verify", f"hf://datasets/{REPO}")):
        result = run(*arguments)
        assert_one_line_error(result, 2, "token", "hf auth login")
        assert "cret" not in result.stderr
    with pytest.raises(ZooError, match=r"token|401"):
        ZooStore(f"hf://datasets/{REPO}")


@pytest.mark.parametrize("repo", ["cdl", "org/cdl/x", "org/cdl@v1", "org/c dl", "-/-"])
def test_names_of_repositories(run: Cli, tiny: Store, token: str, repo: str) -> None:
    assert_one_line_error(run("publish", str(tiny.path), "--repo", repo), 2, repo, "ORG/NAME")


@pytest.mark.parametrize("content", ["[1]", "{", None])
def test_records_that_cannot_be_kept_are_refused_first(
    run: Cli, tiny: Store, token: str, tmp_path: Path, content: str | None
) -> None:
    if content:
        (tmp_path / "hub.json").write_text(content)
    file = "hub.json" if content else "absent/hub.json"
    assert_one_line_error(run("publish", str(tiny.path), "--repo", REPO, "--record", file), 2, file.split("/")[0])
    assert HUB.requests == []


@pytest.mark.parametrize(
    ("samples", "category"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (130_000, "100K<n<1M"), (10**6, "1M<n<10M"), (10**9, "1B<n<10B"),
     (10**11, "100B<n<1T"), (10**12, "n>1T")],
)  # fmt: skip
def test_size_categories(samples: int, category: str) -> None:
    assert size_category(samples) == category


# pull ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["", "@main", "@v1", "@{sha}"])
def test_by_branch_tag_and_commit(run: Cli, tiny: Store, sha: str, tmp_path: Path, revision: str) -> None:
    HUB.tag(REPO, "v1", sha, "dataset")
    result = run("pull", REPO + revision.format(sha=sha), "--out", "s.zarr")
    assert result.returncode == 0, result.stderr
    assert f"{tmp_path / 's.zarr'}: cdl-c-fdd-v1, 2040 samples in 3 shards, complete and read back" in result.stdout
    assert result.stdout.endswith(f"from {REPO}@{sha}\n")
    assert "B/s" in result.stderr  # the bar


def test_a_store_that_is_there(run: Cli, tiny: Store, sha: str, tmp_path: Path) -> None:
    facts = json.loads(run("pull", REPO, "--out", "s.zarr", "--json", "--quiet").stdout)
    assert (facts["existed"], facts["commit"], facts["digest"]) == (False, sha, tiny.manifest.digest)
    before = len(fetched("store.zarr"))
    assert json.loads(run("pull", REPO, "--out", "s.zarr", "--json", "--quiet").stdout)["existed"] is True
    assert len(fetched("store.zarr")) == before
    datagen.generate(tiny_recipe(seed=8, train=300), tmp_path / "other.zarr", shard_samples=1024)
    (tmp_path / "notes").mkdir()
    assert_one_line_error(run("pull", REPO, "--out", "other.zarr"), 2, "other.zarr holds another data set", "--force")
    assert_one_line_error(run("pull", REPO, "--out", "notes", "--force"), 2, "notes exists and is no datagen store")
    assert_one_line_error(run("pull", REPO, "--out", "absent/s.zarr"), 2, "does not exist; make it first")
    assert len(fetched("store.zarr")) == before
    assert run("pull", REPO, "--out", "other.zarr", "--force").returncode == 0
    assert_same_samples(datagen.open_store(tmp_path / "other.zarr"), tiny)
    assert_nothing_there(tmp_path, "s.zarr", "other.zarr", "notes")


def test_held_to_a_released_manifest(run: Cli, tiny: Store, sha: str, tmp_path: Path) -> None:
    other = datagen.generate(tiny_recipe(seed=8, train=300), tmp_path / "other.zarr", shard_samples=1024)
    (tmp_path / "other.json").write_text(other.manifest.to_json())
    (tmp_path / "tiny.json").write_text(tiny.manifest.to_json())
    wrong = run("pull", REPO, "--out", "s.zarr", "--manifest", "other.json")
    assert_one_line_error(wrong, 1, "was made from recipe", "nothing kept")
    assert_nothing_there(tmp_path, "other.zarr", "other.json", "tiny.json")
    for _ in range(2):
        assert run("pull", REPO, "--out", "s.zarr", "--manifest", "tiny.json").returncode == 0
    assert_one_line_error(run("pull", REPO, "--out", "s.zarr", "--manifest", "other.json"), 1, "was made from recipe")


def test_a_bad_copy_is_fetched_again(tiny: Store, sha: str, tmp_path: Path) -> None:
    HUB.fail(".*GET .*/train/X/c/1/0/0", corrupt=True)
    assert_same_samples(pull(REPO, tmp_path / "s.zarr").store, tiny)
    assert len(fetched("train/X/c/1/0/0")) == 2


@pytest.mark.parametrize("name", ["store.zarr/train/X/c/1/0/0", "store.zarr/zarr.json", "manifest.json"])
def test_wrong_bytes_of_the_right_size_are_refused(run: Cli, sha: str, tmp_path: Path, name: str) -> None:
    HUB.fail(f"GET .*/{name}", times=9, corrupt=True)
    assert_one_line_error(
        run("pull", REPO, "--out", "s.zarr"), 1, f"{name} came with other bytes than the Hub promised"
    )
    assert not (tmp_path / "s.zarr").exists()
    HUB.faults.clear()
    assert run("pull", REPO, "--out", "s.zarr").returncode == 0
    assert_nothing_there(tmp_path, "s.zarr")


def test_a_cut_connection_leaves_nothing_half_written(run: Cli, tiny: Store, sha: str, tmp_path: Path) -> None:
    HUB.fail("GET .*/train/Z/c/1/0/0", times=99, cut=10_000)
    result = run("pull", REPO, "--out", "s.zarr")
    assert_one_line_error(result, 2, REPO, "cannot be reached")
    assert not (tmp_path / "s.zarr").exists()
    assert_nothing_there(tmp_path, "s.zarr.wip")
    with pytest.raises(DatagenError, match="unfinished run lies in"):
        datagen.open_store(tmp_path / "s.zarr")
    HUB.faults.clear()
    before = len(fetched("/c/"))
    assert run("pull", REPO, "--out", "s.zarr").returncode == 0
    assert 1 <= len(fetched("/c/")) - before < 9  # what came whole is not asked for again
    assert_same_samples(datagen.open_store(tmp_path / "s.zarr"), tiny)
    assert_nothing_there(tmp_path, "s.zarr")


def test_ctrl_c_and_on(tiny: Store, sha: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = publishing._fetch

    def stop(repo: str, sha: str, remote: Any, directory: Path) -> Path:
        if remote.path == "store.zarr/zarr.json":
            raise KeyboardInterrupt
        return fetch(repo, sha, remote, directory)

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_fetch", stop)
        with pytest.raises(Interrupted, match=r"stopped: 3 of 3 shards are in .*s\.zarr\.wip; give the same command"):
            pull(REPO, tmp_path / "s.zarr")
    (data,) = tmp_path.glob("s.zarr.wip/*/data.zarr")
    (data / "train/X/c/0/0/0").write_bytes(b"\0" * (data / "train/X/c/0/0/0").stat().st_size)
    (data / "stale").write_text("of another commit")
    before = len(fetched("/c/"))
    assert_same_samples(pull(REPO, tmp_path / "s.zarr").store, tiny)
    assert len(fetched("/c/")) - before == 1  # what lies there is not trusted
    assert_nothing_there(tmp_path, "s.zarr")


def test_two_at_one_place(tiny: Store, sha: str, tmp_path: Path) -> None:
    from datagen.ledger import Ledger

    with Ledger(tmp_path / "s.zarr", {}).locked(), pytest.raises(DatagenError, match="is being written by process"):
        pull(REPO, tmp_path / "s.zarr")
    assert_nothing_there(tmp_path)


def evil(change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """Publish the repository's files with a change."""
    repository = HUB.repository(REPO, "dataset")
    files = change(remote())
    repository.commit({name: hub_server.File(data, len(data) > 100_000) for name, data in files.items()})


@pytest.mark.parametrize(
    "name",
    ["store.zarr/../../../evil", "store.zarr//etc/evil", "store.zarr/train/X/c/0/0/../../evil", "store.zarr/evil.py",
     "store.zarr/a\\..\\evil", "store.zarr/train/X/c/9/0/0"],
)  # fmt: skip
def test_names_that_do_not_belong_are_refused(run: Cli, sha: str, tmp_path: Path, name: str) -> None:
    evil(lambda files: {**files, name: b"evil"})
    result = run("pull", REPO, "--out", "s.zarr")
    assert_one_line_error(result, 1, "which does not belong in a store; nothing was taken")
    assert_nothing_there(tmp_path)
    assert not fetched("store.zarr")


def test_names_outside_the_store_are_left_alone(sha: str, tmp_path: Path, tiny: Store) -> None:
    evil(lambda files: {**files, "../evil": b"evil", "weights.pkl": b"evil"})
    assert_same_samples(pull(REPO, tmp_path / "s.zarr").store, tiny)
    assert not fetched("evil")
    assert not fetched("pkl")
    assert_nothing_there(tmp_path, "s.zarr")


def signed(manifest: Manifest, **changes: Any) -> bytes:
    return json.dumps(edited(manifest, sign=True, **changes)).encode()


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda m: signed(m, shards=[{**r.model_dump(), "split": "../../evil"} for r in m.shards]), 2, "its shards are not"),
        (lambda m: signed(m, shards=[]), 2, "its shards are not those of its recipe"),
        (lambda m: signed(m, recipe={**m.recipe, "name": "../evil"}), 2, "name"),
        (lambda m: signed(m, recipe={**m.recipe, "train": 10**15}), 2, "its shards are not those of its recipe"),
        (lambda m: signed(m, created="2000-01-01T00:00:00Z"), 1, "its manifest.json is not the one that its store carries"),
        (lambda m: m.to_json().replace("closed-form", "other").encode(), 1, "was edited"),
        (lambda m: b"[" * 10_000, 2, "/manifest.json is not a JSON manifest"),
        (lambda m: None, 2, "is no data set of datagen: it has no proper manifest.json"),
    ],
)  # fmt: skip
def test_manifests_that_do_not_fit(
    run: Cli, sha: str, tiny: Store, tmp_path: Path, change: Callable[[Manifest], bytes | None], code: int, words: str
) -> None:
    data = change(tiny.manifest)
    evil(lambda files: {n: d for n, d in {**files, "manifest.json": data or b""}.items() if d or n != "manifest.json"})
    assert_one_line_error(run("pull", REPO, "--out", "s.zarr"), code, words)
    assert_nothing_there(tmp_path)


def test_files_that_are_missing(run: Cli, sha: str, tmp_path: Path) -> None:
    evil(lambda files: {name: data for name, data in files.items() if "/val/" not in name})
    assert_one_line_error(run("pull", REPO, "--out", "s.zarr"), 1, "lacks store.zarr/val/X/c/0/0/0")
    assert_nothing_there(tmp_path)


def test_samples_that_are_not_the_manifests(run: Cli, sha: str, tmp_path: Path) -> None:
    swap = {"store.zarr/train/X/c/0/0/0": "store.zarr/train/Y/c/0/0/0"}
    evil(lambda files: {name: files[swap.get(name, name)] for name in files})
    assert_one_line_error(run("pull", REPO, "--out", "s.zarr"), 1, "train/X/c/0/0/0 has other samples", "nothing kept")
    assert_nothing_there(tmp_path)


@pytest.mark.parametrize("command", ["pull", "verify", "inspect"])
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("org/absent", "there is no data set org/absent on the Hub, or it is private; for that log in"),
        (f"{REPO}@v9", f"the data set {REPO} has no such branch, tag or commit"),
        (f"{REPO}@{'0' * 40}", f"the data set {REPO} has no such branch, tag or commit"),
        ("org/-x-", "ORG/NAME"),
    ],
)
def test_what_is_not_there(run: Cli, sha: str, tmp_path: Path, command: str, address: str, words: str) -> None:
    arguments = (address, "--out", "s.zarr") if command == "pull" else (f"hf://datasets/{address}/store.zarr",)
    assert_one_line_error(run(command, *arguments), 2, words)
    assert_nothing_there(tmp_path)


@pytest.mark.parametrize(
    "address", ["cdl", "org/cdl@", "https://example.org/org/cdl", "org/cdl/store.zarr", "../etc/x"]
)
def test_what_is_no_address(run: Cli, tmp_path: Path, address: str) -> None:
    assert_one_line_error(run("pull", address, "--out", "s.zarr"), 2, "is no data set on the Hub; give ORG/NAME")
    assert HUB.requests == []


@pytest.mark.usefixtures("no_picture")
def test_private_data_sets(
    server: HubServer, tiny: Store, token: str, run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tiny, REPO, private=True)
    url = f"hf://datasets/{REPO}/store.zarr"
    for given in (None, server.token("somebody")):
        monkeypatch.delenv("HF_TOKEN") if given is None else monkeypatch.setenv("HF_TOKEN", given)
        for arguments in (("pull", REPO, "--out", "s.zarr"), ("verify", url)):
            assert_one_line_error(run(*arguments), 2, f"there is no data set {REPO} on the Hub, or it is private")
    monkeypatch.setenv("HF_TOKEN", server.token("org", role="read"))
    assert run("pull", REPO, "--out", "s.zarr").returncode == 0
    assert run("verify", url).returncode == 0


@pytest.mark.usefixtures("no_picture")
def test_tokens_are_nowhere(
    tiny: Store, token: str, run: Cli, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [run("publish", str(tiny.path), "--repo", REPO, "--private", "--tag", "v1", "--record", "hub.json")]
    said.append(run("pull", REPO, "--out", "s.zarr"))
    HUB.fail("GET .*/c/0/0/0", times=99, status=403)
    said += [
        run("pull", REPO, "--out", "t.zarr"),
        run("verify", f"hf://datasets/{REPO}"),
        run("pull", "org/x", "--out", "t.zarr"),
    ]
    assert [result.returncode for result in said] == [0, 0, 2, 1, 2]
    store = datagen.open_store(f"hf://datasets/{REPO}")
    with pytest.raises(Exception, match="Forbidden") as caught:
        store["train"].X[:1]
    texts = [f"{result.stdout}{result.stderr}" for result in said]
    texts += [caplog.text, f"{caught.value!r}", f"{store!r} {store.path} {place(str(store.path))!r}"]
    texts += [file.read_bytes().decode(errors="replace") for file in tmp_path.rglob("*") if file.is_file()]
    texts += [data.decode(errors="replace") for data in remote().values()]
    assert not [text for text in texts if token in text]


# in place --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every body that the server has sent since."""
    write, counted = hub_server._Handler._write, list[int]()

    def counting(handler: Any, body: bytes) -> None:
        counted.append(len(body))
        write(handler, body)

    monkeypatch.setattr(hub_server._Handler, "_write", counting)
    return counted


def test_reading_in_place_takes_what_is_asked_for(tiny: Store, sha: str, sent: list[int]) -> None:
    store = datagen.open_store(f"hf://datasets/{REPO}@main/store.zarr")
    assert store.path == f"hf://datasets/{REPO}@{sha}/store.zarr"
    assert store.manifest == tiny.manifest
    opening = sum(sent)
    np.testing.assert_array_equal(store["train"].X[256:512], tiny["train"].X[256:512])
    shard = (Path(str(tiny.path)) / "train/X/c/0/0/0").stat().st_size
    assert CHUNK_BYTES <= sum(sent) - opening < CHUNK_BYTES + 1000 < shard / 3
    assert opening < 50_000
    assert repr(store["val"]) == repr(tiny["val"])
    assert (len(store["train"]), list(store)) == (2000, ["train", "val"])
    assert_same_samples(store, tiny)


def test_a_redirect_does_not_take_the_token_along(tiny: Store, sha: str) -> None:
    elsewhere = HubServer()
    elsewhere.start()
    try:
        elsewhere.repositories |= HUB.repositories
        path = f"/datasets/{REPO}/resolve/{sha}/store.zarr/train/X/c/0/0/0"
        HUB.fail(f"GET {path}", status=302, headers={"Location": f"{elsewhere.url}{path}?Signature=secret"})
        x = datagen.open_store(f"hf://datasets/{REPO}@{sha}")["train"].X[:1024]
        np.testing.assert_array_equal(x, tiny["train"].X[:1024])
        assert elsewhere.requests == [(f"GET {path}", None)]
    finally:
        elsewhere.close()


def test_an_array_takes_no_token_to_another_process(tiny: Store, sha: str, token: str) -> None:
    array = datagen.open_store(f"hf://datasets/{REPO}")["train"].X
    sent = pickle.dumps((array, place(f"hf://datasets/{REPO}")))
    assert token.encode() not in sent
    np.testing.assert_array_equal(pickle.loads(sent)[0][:3], tiny["train"].X[:3])


@pytest.mark.parametrize("fault", [{"status": 503}, {"cut": 1000}])
def test_a_bad_moment_is_ridden_out(tiny: Store, sha: str, fault: dict[str, int]) -> None:
    store = datagen.open_store(f"hf://datasets/{REPO}")
    HUB.fail("GET .*/train/X/c/1/0/0", **fault)
    np.testing.assert_array_equal(store["train"].X[1024:1100], tiny["train"].X[1024:1100])
    assert HUB.faults[0].times == 0


def test_a_moving_branch_is_resolved_once(tiny: Store, sha: str, token: str) -> None:
    store = datagen.open_store(f"hf://datasets/{REPO}")
    evil(lambda files: {name: data for name, data in files.items() if not name.startswith("store.zarr/")})
    np.testing.assert_array_equal(store["train"].Y[:5], tiny["train"].Y[:5])
    assert datagen.verify(store).bad == []
    assert len(HUB.calls(f"GET /api/datasets/{REPO}$")) <= 2 + len(HUB.calls("POST"))
    with pytest.raises(DatagenError, match="is not a datagen store"):
        datagen.open_store(f"hf://datasets/{REPO}")


def test_commands_take_urls(run: Cli, tiny: Store, sha: str, tmp_path: Path) -> None:
    url = f"hf://datasets/{REPO}@{sha}/store.zarr"
    verified = run("verify", url, "--quiet", "--json")
    assert json.loads(verified.stdout)["ok"] is True
    facts = json.loads(run("inspect", url, "--json").stdout)
    assert facts["bytes"] == sum(sizes(Path(str(tiny.path))).values())
    assert facts["digest"] == tiny.manifest.digest
    assert run("manifest", url).stdout == tiny.manifest.to_json()
    HUB.tamper(REPO, "store.zarr/val/Z/c/0/0/0", remote()["store.zarr/val/Y/c/0/0/0"], "dataset")
    bad = run("verify", url, "--quiet")
    assert (bad.returncode, bad.stdout.count("\n")) == (1, 1)
    assert bad.stdout.startswith("bad: val shard 0 (samples 0 to 39): val/Z/c/0/0/0 has other samples")


def test_zoo_reads_in_place(tiny: Store, sha: str, sent: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from zoo.data import Store as ZooStore
    from zoo.errors import ZooError

    theirs, ours = ZooStore(f"hf://datasets/{REPO}"), ZooStore(str(tiny.path))
    assert theirs.path == f"hf://datasets/{REPO}@{sha}/store.zarr"
    assert (theirs.sizes, theirs.dataset) == (ours.sizes, ours.dataset)
    before = sum(sent)
    for a, b in zip(theirs.read("train", 256, 512), ours.read("train", 256, 512), strict=True):
        assert a is not None
        assert b is not None
        assert a.equal(b)
    assert sum(sent) - before < 3 * (CHUNK_BYTES + 1000)
    for url, words in {
        "hf://datasets/org/absent/store.zarr": "there is no repository org/absent, or it is private",
        f"hf://datasets/{REPO}@v9": f"{REPO} has no revision 'v9'",
        f"hf://datasets/{REPO}/other.zarr": "is not a CSI store .*give one that datagen publish has put there",
        f"hf://datasets/{REPO}/../x": "is no store on the Hub",
        "hf://org/model": "is no store on the Hub",
    }.items():
        with pytest.raises(ZooError, match=words):
            ZooStore(url)
    HUB.repository(REPO, "dataset").private = True
    assert ZooStore(f"hf://datasets/{REPO}").sizes == ours.sizes
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ZooError, match="or it is private; see hf auth login"):
        ZooStore(f"hf://datasets/{REPO}")


@pytest.mark.usefixtures("no_picture")
def test_zoo_commands_take_urls(zoo_cli: Cli, small_store: Store, token: str, tmp_path: Path) -> None:
    publish(small_store, REPO)
    url = f"hf://datasets/{REPO}/store.zarr"
    for source, payloads in ((url, "theirs"), (str(small_store.path), "ours")):
        result = zoo_cli("compress", "klt-cdl-128b", source, payloads, "--split", "val", "--quiet")
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "theirs").read_bytes() == (tmp_path / "ours").read_bytes()


def test_nothing_is_written_to_the_hub_by_url(run: Cli, sha: str, tiny: Store, tmp_path: Path) -> None:
    url, before = f"hf://datasets/{REPO}/new.zarr", remote()
    (tmp_path / "m.json").write_text(tiny.manifest.to_json())
    for command in (("cdl",), ("cdl", "--dry-run"), ("regenerate", "m.json"), ("pull", REPO)):
        assert_one_line_error(run(*command, "--out", url), 2, f"{url} can only be read", "datagen publish STORE --repo")
    with pytest.raises(DatagenError, match="can only be read"):
        datagen.generate(tiny_recipe(), url)
    there = place(url)
    assert isinstance(there, BucketPath)
    for write in (lambda: there.put(b""), there.unlink, lambda: there.copy_to(there)):
        with pytest.raises(BucketError, match="can only be read"):
            write()
    assert remote() == before


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hf://org/cdl", "is no place on the Hub; give hf://datasets/ORG/NAME@REVISION/store.zarr"),
        ("hf://datasets/cdl", "is no place on the Hub"),
        ("hf://datasets/org/cdl@/store.zarr", "is no place on the Hub"),
        ("hf://datasets/org/cdl/../x", "may hold no"),
        ("hf://datasets/org/cdl/a//b", "may hold no"),
        ("hf://datasets/org/cdl/a?b", "may hold no"),
    ],
)
def test_urls_that_name_no_place(url: str, words: str) -> None:
    with pytest.raises(DatagenError, match=words):
        datagen.open_store(url)
    assert HUB.requests == []


def test_a_place_on_the_hub(tiny: Store, sha: str) -> None:
    there = place(f"hf://datasets/{REPO}@{sha}/store.zarr/")
    assert place(str(there)) == there
    assert there.name == "store.zarr"
    assert there.exists()
    assert there.is_dir()
    assert (there / "train/zarr.json").exists()
    assert not (there / "train/none").exists()
    assert sorted(path.name for path in there.iterdir()) == ["train", "val", "zarr.json"]
    assert sizes(there) == sizes(Path(str(tiny.path)))
    with pytest.raises(FileNotFoundError):
        (there / "none").read_text()
    branch = hubs.hub_path(f"hf://datasets/{REPO}@refs%2Fpr%2F1")
    assert (branch.repo, branch.revision) == (REPO, "refs/pr/1")


def test_without_a_network(cli: Cli, sha: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"hf://datasets/{REPO}@{sha}"
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        for arguments in (("pull", REPO, "--out", "s.zarr"), ("verify", url)):
            assert_one_line_error(cli(*arguments), 2, "HF_HUB_OFFLINE is set")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for arguments in (("pull", REPO, "--out", "s.zarr"), ("verify", url)):
        assert_one_line_error(cli(*arguments), 2, "the Hub cannot be reached", "check the network and HF_ENDPOINT")
    assert_nothing_there(tmp_path)


@pytest.mark.parametrize(("status", "words"), [(429, "too many requests"), (503, "HTTP status 503; try again later")])
def test_a_hub_that_is_busy(run: Cli, sha: str, tmp_path: Path, status: int, words: str) -> None:
    HUB.fail(f"GET /api/datasets/{REPO}", times=99, status=status)
    assert_one_line_error(run("pull", REPO, "--out", "s.zarr"), 2, REPO, words)
    assert_nothing_there(tmp_path)
