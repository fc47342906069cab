"""Models from the Hub: the real client against a server on loopback that lies, breaks off and refuses."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.conftest import Cli, assert_one_line_error
from tests.hub_server import HubServer
from zoo import publication, registry
from zoo.checkpoint import check, load_model
from zoo.errors import ZooError
from zoo.locate import locate
from zoo.publication import Publication
from zoo.publish import Draft, content_of, draft

REPO = "org/csinet-tiny"
NAME = "csinet-tiny-66b"
FILES = sorted(registry.FILES)


@pytest.fixture(scope="module")
def drafted(collection: Path) -> Draft:
    return draft("csinet-tiny", REPO, collection)


@pytest.fixture
def release(hub: HubServer, manifests: Path, drafted: Draft) -> Publication:
    """The family of the collection, published with the tag v1 by somebody else."""
    commit = hub.commit(REPO, {path: content_of(file) for path, file in drafted.files.items()})
    hub.tag(REPO, "v1", commit)
    made = Publication(
        repo=REPO, commit=commit, tag="v1", manifest=drafted.records["manifest.json"], family=drafted.family
    )
    (manifests / "csinet-tiny.json").write_text(publication.to_json(made))
    return made


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Take the net away, as HF_HUB_OFFLINE=1 does before the client is imported."""
    return lambda: monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def cached(tmp_path: Path, file: str) -> Path:
    """A file of the small model in the cache."""
    return next((tmp_path / "hub-cache").glob(f"models--*/snapshots/*/66b/{file}"))


def upload(hub: HubServer, model: Path) -> None:
    """Put a model's directory on the Hub as it is, with no manifest."""
    hub.commit("evil/repo", {f"66b/{path.name}": path.read_bytes() for path in model.iterdir()})


def assert_same(model: Any, collection: Path) -> None:
    wanted = load_model(collection / NAME).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


# by name, tag and commit -----------------------------------------------------------------------------------------------------


def test_by_name_tag_and_commit(hub: HubServer, release: Publication, collection: Path, tmp_path: Path) -> None:
    assert_same(zoo.load(NAME), collection)
    assert sorted(hub.calls("GET")) == [f"GET /{REPO}/resolve/{release.commit}/66b/{file}" for file in FILES]
    hub.requests.clear()
    assert_same(zoo.load(NAME, revision=release.commit), collection)
    assert_same(zoo.load(NAME), collection)
    assert hub.calls() == []  # it is in the cache
    for address in (f"hf:{REPO}/66b", f"hf:{REPO}/66b@v1", f"hf:{REPO}/66b@main", f"hf:{REPO}/66b@{release.commit}"):
        assert_same(zoo.load(address), collection)
    assert_same(zoo.load(f"hf:{REPO}/66b", revision="v1", cache_dir=tmp_path / "other"), collection)
    assert_same(zoo.load(NAME, revision="v1", cache_dir=tmp_path / "other"), collection)
    assert zoo.load(NAME, dtype="float64").scale.dtype == torch.float64
    model, digests = locate(NAME)
    assert check(model, load_model(model, digests)) < 1e-3
    assert digests == registry.read_index(collection)[NAME]


def test_directories_and_embedded_models_go_first(
    hub: HubServer, release: Publication, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS", collection)
    assert locate(NAME)[0] == collection / NAME
    shutil.copytree(collection / NAME, NAME)
    assert locate(NAME)[0] == Path(NAME)
    with pytest.raises(ZooError, match="is a directory here; a revision is for models of the Hub"):
        zoo.load(NAME, revision="v1")
    assert hub.calls() == []
    shutil.rmtree(NAME)
    zoo.load(NAME, revision="v1")
    assert hub.calls("GET .*/66b/model.safetensors")
    monkeypatch.setattr(publication, "PUBLISHED", tmp_path / "none")
    with pytest.raises(ZooError, match="comes with the package; a revision is for"):
        zoo.load(NAME, revision="v1")


def test_offline_after_one_download(
    hub: HubServer, release: Publication, collection: Path, offline: Callable[[], None]
) -> None:
    zoo.load(f"hf:{REPO}/66b@v1")
    hub.requests.clear()
    offline()
    assert_same(zoo.load(NAME), collection)
    assert_same(zoo.load(f"hf:{REPO}/66b@v1"), collection)
    assert_same(zoo.load(NAME, local_files_only=True), collection)
    with pytest.raises(
        ZooError, match=r"132b/config.json of org/csinet-tiny is not in the cache and the Hub cannot be reached"
    ):
        zoo.load("csinet-tiny-132b")
    with pytest.raises(ZooError, match="is not in the cache and the Hub cannot be reached"):
        zoo.load(f"hf:{REPO}/66b@v2")
    assert hub.calls() == []


def test_offline_in_a_process_of_its_own(hub: HubServer, release: Publication, tmp_path: Path) -> None:
    address = f"hf:{REPO}/66b@v1"
    (
        publication.PUBLISHED / "csinet-tiny.json"
    ).unlink()  # nor does that process know it: the repository's own manifest counts
    zoo.load(address)
    hub.requests.clear()
    command = [str(Path(sys.executable).with_name("zoo")), "check", address]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "golden vectors replayed" in result.stdout
    assert hub.calls() == []


def test_a_private_repository_takes_a_token(
    hub: HubServer, release: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repository(REPO).private = True
    with pytest.raises(ZooError, match="there is no repository org/csinet-tiny, or it is private; see hf auth login"):
        zoo.load(NAME)
    monkeypatch.setenv("HF_TOKEN", hub.token("stranger"))
    with pytest.raises(ZooError, match="or it is private"):
        zoo.load(NAME)
    monkeypatch.setenv("HF_TOKEN", hub.token("org", role="read"))
    zoo.load(NAME)


@pytest.mark.parametrize("token", ["hf_nobodyknowsthis", "hf_secret\x01this", "hf_sécretthis"])
def test_a_bad_token_is_not_shown(release: Publication, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ZooError, match=r"the Hub does not know this token|the token is malformed") as error:
        zoo.load(NAME)
    assert "this" not in str(error.value).replace("this token", "")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf:org", "is no address; give hf:org/repo"),
        (f"hf:{REPO}/../66b", "is no address"),
        (f"hf:{REPO}/66b@../v1", "is no address"),
        ("hf:org/absent", "there is no repository org/absent"),
        ("hf:org/-/66b", "is no name of a repository"),
        (f"hf:{REPO}/66b@v2", "has no revision 'v2'"),
        (f"hf:{REPO}", "holds no model: it has no config.json; name a folder, hf:org/csinet-tiny/FOLDER, of 66b, 132b"),
        (f"hf:{REPO}/96b", "name a folder, hf:org/csinet-tiny/FOLDER, of 66b, 132b"),
        ("csinet-tiny-96b", "unknown model 'csinet-tiny-96b'; nearest: csinet-tiny-66b"),
    ],
)
def test_bad_addresses(release: Publication, address: str, words: str) -> None:
    with pytest.raises(ZooError) as error:
        zoo.load(address)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_odd_revisions(release: Publication) -> None:
    for revision in ("../main", "/etc/passwd", "a/../b", ""):
        with pytest.raises(ZooError, match="is no revision; give a branch, a tag or a commit"):
            zoo.load(NAME, revision=revision)
    with pytest.raises(ZooError, match="has a revision already, and 'main' is another"):
        zoo.load(f"hf:{REPO}/66b@v1", revision="main")


# damage and repair -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_in_the_cache_is_mended_once(
    hub: HubServer, release: Publication, collection: Path, tmp_path: Path, file: str
) -> None:
    zoo.load(NAME)
    data = cached(tmp_path, file).read_bytes()
    cached(tmp_path, file).resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    hub.requests.clear()
    assert_same(zoo.load(NAME), collection)
    assert hub.calls("GET") == [f"GET /{REPO}/resolve/{release.commit}/66b/{file}"]
    assert cached(tmp_path, file).read_bytes() == data


def test_a_damaged_file_is_refused_offline(
    hub: HubServer, release: Publication, tmp_path: Path, offline: Callable[[], None]
) -> None:
    zoo.load(f"hf:{REPO}/66b@v1")
    cached(tmp_path, "results.json").resolve().write_bytes(b"{}")
    with pytest.raises(ZooError, match="is damaged in the cache, and the Hub may not be asked"):
        zoo.load(NAME, local_files_only=True)
    offline()
    for address in (NAME, f"hf:{REPO}/66b@v1"):
        with pytest.raises(ZooError, match=r"66b/results.json of org/csinet-tiny is damaged in the cache"):
            zoo.load(address)


def test_a_damaged_file_when_the_hub_does_not_answer(
    hub: HubServer, release: Publication, collection: Path, tmp_path: Path
) -> None:
    zoo.load(NAME)
    cached(tmp_path, "config.json").resolve().write_bytes(b"{}")
    hub.fail("HEAD", times=99, status=503)
    with pytest.raises(ZooError, match=r"the Hub answers 503 when asked for 66b/config.json"):
        zoo.load(NAME)
    hub.faults.clear()
    assert_same(zoo.load(NAME), collection)


def test_wrong_bytes_on_the_way_are_fetched_again(
    hub: HubServer, release: Publication, collection: Path, tmp_path: Path
) -> None:
    hub.fail("GET .*/66b/model.safetensors", corrupt=True)
    assert_same(zoo.load(NAME), collection)
    assert len(hub.calls("GET .*/66b/model.safetensors")) == 2


@pytest.mark.parametrize("file", FILES)
def test_wrong_bytes_every_time_are_refused(hub: HubServer, release: Publication, tmp_path: Path, file: str) -> None:
    hub.fail(f"GET .*/66b/{file}", times=9, corrupt=True)
    with pytest.raises(ZooError, match=f"66b/{file} of org/csinet-tiny@.* is not the file on record: it has SHA-256"):
        zoo.load(NAME)
    assert len(hub.calls(f"GET .*/66b/{file}")) == 2
    assert not list((tmp_path / "hub-cache").rglob(file))


@pytest.mark.parametrize("longer", [b"", b" "])
def test_a_published_file_edited_upstream_is_refused(hub: HubServer, release: Publication, longer: bytes) -> None:
    files = hub.repository(REPO).commits[release.commit]
    data = files["66b/config.json"].data
    hub.tamper(REPO, "66b/config.json", data.replace(b"csinet", b"csibet") + longer)
    refusal = r"66b/config.json of .* is not the file on record: .*do not use it"
    with pytest.raises(ZooError, match=refusal):
        zoo.load(NAME)
    assert bool(hub.calls("GET .*/66b/config.json")) is not bool(longer)  # another size is seen beforehand
    with pytest.raises(ZooError, match=refusal):
        zoo.load(f"hf:{REPO}/66b@{release.commit}")


def test_a_file_that_came_back_edited_and_is_mended_upstream(
    hub: HubServer, release: Publication, collection: Path, manifests: Path
) -> None:
    data = hub.repository(REPO).commits[release.commit]["66b/results.json"].data
    hub.tamper(REPO, "66b/results.json", data + b" ")
    record = publication.PUBLISHED / "csinet-tiny.json"
    kept = record.read_text()
    record.unlink()
    hub.tamper(REPO, "manifest.json", b"{}")
    with pytest.raises(ZooError, match=r"manifest.json of org/csinet-tiny is no manifest of models"):
        zoo.load(f"hf:{REPO}/66b")
    hub.tamper(REPO, "66b/results.json", data)
    record.write_text(kept)
    assert_same(zoo.load(NAME), collection)


def test_an_interrupted_download_goes_on(
    hub: HubServer, release: Publication, collection: Path, tmp_path: Path
) -> None:
    hub.fail("GET .*/66b/model.safetensors", cut=1000)
    assert_same(zoo.load(NAME), collection)
    hub.fail("GET .*/132b/vectors.safetensors", times=99, cut=0)
    with pytest.raises(ZooError, match=r"cannot reach the Hub at http://.* for 132b/vectors.safetensors"):
        zoo.load("csinet-tiny-132b")
    hub.faults.clear()
    zoo.load("csinet-tiny-132b")


def test_slow_busy_and_broken_answers(
    hub: HubServer, release: Publication, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 1.0)
    never = threading.Event()
    hub.fail("GET .*/66b/model.safetensors", hold=never)
    hub.fail("GET .*/66b/config.json", status=429, headers={"Retry-After": "0"})
    hub.fail("HEAD .*/66b/results.json", status=503)
    hub.fail("HEAD .*/66b/vectors.safetensors", times=2, status=429, headers={"Retry-After": "0"})
    assert_same(zoo.load(NAME), collection)
    never.set()
    hub.fail("HEAD .*/132b/.*", times=99, status=503)
    with pytest.raises(ZooError, match=r"the Hub answers 503 when asked for 132b/config.json"):
        zoo.load("csinet-tiny-132b")


def test_a_tag_that_moved(hub: HubServer, release: Publication, collection: Path, small_model: Path) -> None:
    other = {f"66b/{path.name}": path.read_bytes() for path in (collection / "csinet-tiny-132b").iterdir()}
    moved = hub.commit(REPO, {path: data for path, data in other.items() if "results" not in path})
    hub.tag(REPO, "v1", moved)
    assert_same(zoo.load(NAME), collection)  # pinned to its commit
    assert_same(zoo.load(f"hf:{REPO}/66b@{release.commit}"), collection)
    with pytest.raises(ZooError, match="is not the file on record"):
        zoo.load(f"hf:{REPO}/66b@v1")  # the manifest there is of the files that were


def test_loads_at_once_share_a_cache(hub: HubServer, release: Publication, collection: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for model in pool.map(zoo.load, [NAME] * 4):
            assert_same(model, collection)
    script = str(Path(sys.executable).with_name("zoo"))
    command = [script, "pull", f"hf:{REPO}/66b@v1", "--cache-dir", str(tmp_path / "shared")]
    pulls = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in pulls:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "verified" in out
    assert_same(zoo.load(NAME, cache_dir=tmp_path / "shared", local_files_only=True), collection)


# what nobody vouches for -----------------------------------------------------------------------------------------------------


def test_a_repository_without_a_manifest(hub: HubServer, collection: Path, tmp_path: Path, manifests: Path) -> None:
    upload(hub, collection / NAME)
    assert_same(zoo.load("hf:evil/repo/66b"), collection)
    path, digests = locate("hf:evil/repo/66b")
    assert digests is None
    blob = cached(tmp_path, "vectors.safetensors").resolve()
    blob.write_bytes(b"x" * blob.stat().st_size)
    zoo.load("hf:evil/repo/66b")  # the cache names files by their digest
    assert (path / "vectors.safetensors").read_bytes() == (collection / NAME / "vectors.safetensors").read_bytes()


def test_pickle_is_never_fetched(hub: HubServer, collection: Path, tmp_path: Path, manifests: Path) -> None:
    model = Path(shutil.copytree(collection / NAME, tmp_path / NAME))
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (model / "modelling.py").write_text("raise SystemExit")
    upload(hub, model)
    with pytest.raises(ZooError, match=r"evil/repo has no file 66b/model.safetensors"):
        zoo.load("hf:evil/repo/66b")
    assert hub.calls(r".*\.(bin|py)") == []


def test_pickle_under_the_name_of_weights(hub: HubServer, collection: Path, tmp_path: Path, manifests: Path) -> None:
    _upload_weights(hub, collection, tmp_path, lambda path: path.write_bytes(pickle.dumps({"scale": 1.0})))
    with pytest.raises(ZooError, match="is no safetensors file"):
        zoo.load("hf:evil/repo/66b")


def test_extra_tensors_are_refused(hub: HubServer, collection: Path, tmp_path: Path, manifests: Path) -> None:
    def add(path: Path) -> None:
        save_file({**load_file(path), "backdoor": torch.zeros(1)}, path)

    _upload_weights(hub, collection, tmp_path, add)
    with pytest.raises(ZooError, match="has a weight 'backdoor' that its config knows nothing of"):
        zoo.load("hf:evil/repo/66b")


def _upload_weights(hub: HubServer, collection: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    """A model with other weights, which its config vouches for."""
    model = Path(shutil.copytree(collection / NAME, tmp_path / NAME))
    change(model / "model.safetensors")
    config = json.loads((model / "config.json").read_text())
    config["weights_sha256"] = registry.sha256(model / "model.safetensors")
    (model / "config.json").write_text(json.dumps(config))
    upload(hub, model)


@pytest.mark.parametrize(
    ("text", "words", "fetched"),
    [
        (b'{"a": "' + b"a" * (2 << 20) + b'"}', r"66b/config.json of evil/repo has \d+ bytes; at most 1048576 are taken", False),
        (b"[" * 100_000, "is not JSON", True),
        (b"[]", "is no model's config", True),
    ],
    ids=["huge", "deep", "a list"],
)  # fmt: skip
def test_odd_configs_are_refused(
    hub: HubServer, collection: Path, tmp_path: Path, manifests: Path, text: bytes, words: str, fetched: bool
) -> None:
    model = Path(shutil.copytree(collection / NAME, tmp_path / NAME))
    (model / "config.json").write_bytes(text)
    upload(hub, model)
    with pytest.raises(ZooError, match=words):
        zoo.load("hf:evil/repo/66b")
    assert bool(hub.calls("GET .*/config.json")) is fetched
    with pytest.raises(ZooError):
        zoo.load(model)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"66b"', '"../../66b"'), ('"66b"', '"66b/x"'), ('"66b"', '".."'), ('"csinet-tiny-66b"', '"../csinet"'),
        ('"config.json"', '"../config.json"'), ('"config.json"', '"weights.pkl"'), ('"README.md"', '"/etc/passwd"'),
        ('"format_version": 1', '"format_version": 2'), ('"sha256": "', '"sha256": "x'), ('"bytes": ', '"bytes": -'),
        ('"bytes": ', '"bytes": 99999999999999'), ('"family": ', '"extra": 1, "family": '), ("{", "["),
    ],
)  # fmt: skip
def test_odd_manifests_are_refused(hub: HubServer, release: Publication, before: str, after: str) -> None:
    record = publication.PUBLISHED / "csinet-tiny.json"
    text = record.read_text()
    record.unlink()
    manifest = hub.repository(REPO).commits[release.commit]["manifest.json"].data.decode()
    hub.tamper(REPO, "manifest.json", manifest.replace(before, after, 1).encode())
    for address in (f"hf:{REPO}/66b", f"hf:{REPO}/66b@v1"):
        with pytest.raises(ZooError, match=r"manifest.json of org/csinet-tiny is n"):
            zoo.load(address)
    assert hub.calls("GET .*safetensors") == []
    record.write_text(text.replace(before, after, 1))
    with pytest.raises(ZooError, match=r"csinet-tiny.json is n"):
        zoo.load(NAME)


def test_a_model_that_the_manifest_leaves_out(hub: HubServer, release: Publication, collection: Path) -> None:
    hub.commit(REPO, {f"99b/{path.name}": path.read_bytes() for path in (collection / NAME).iterdir()})
    with pytest.raises(ZooError, match=r"manifest.json of org/csinet-tiny knows nothing of 99b; it has 66b, 132b"):
        zoo.load(f"hf:{REPO}/99b")
    record = publication.PUBLISHED / "csinet-tiny.json"
    record.rename(record.with_name("other.json"))
    with pytest.raises(ZooError, match=r"is of the family csinet-tiny; name it csinet-tiny.json"):
        zoo.load(NAME)


# on the command line ---------------------------------------------------------------------------------------------------------


def test_pull_and_list(
    hub: HubServer,
    release: Publication,
    collection: Path,
    zoo_cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = json.loads(zoo_cli("list", "--remote", "csinet-tiny-*", "--json").stdout)
    place = {"repo": REPO, "commit": release.commit}
    assert [row["model"] for row in known] == [NAME, "csinet-tiny-132b"]
    assert all(
        row.items() >= {**place, "embedded": False, "cached": False, "parameters": 1000}.items() for row in known
    )
    assert hub.calls() == []
    pulled = zoo_cli("pull", NAME)
    assert pulled.returncode == 0, pulled.stderr
    assert "verified" in pulled.stdout
    hub.requests.clear()
    monkeypatch.setattr(registry, "WEIGHTS", collection)
    told = zoo_cli("list", "--remote").stdout.splitlines()
    assert told[0].split() == ["model", "rate", "parameters", "where", "NMSE"]
    short = f"{REPO}@{release.commit[:8]}"
    assert told[1].split("  ")[-2:] == [f"embedded, cached, {short}", "-5.00 dB, -5.00 dB with Y at 30 dB"]
    assert f"embedded, {short}  " in told[2]
    assert zoo_cli("list").stdout.splitlines()[1].split()[:3] == [NAME, "66", "bits"]
    [row] = json.loads(zoo_cli("pull", NAME, "--cache-dir", tmp_path / "there", "--revision", "v1", "--json").stdout)
    assert Path(row["path"]).is_relative_to(tmp_path / "there")
    assert sorted(row["files"]) == FILES
    monkeypatch.setattr(publication, "PUBLISHED", tmp_path / "none")
    assert_one_line_error(zoo_cli("pull", NAME), 2, "comes with the package: there is nothing to pull")
    assert_one_line_error(zoo_cli("pull", "csinet-tiny-6b"), 2, "unknown model 'csinet-tiny-6b'")
    assert_one_line_error(zoo_cli("pull", "hf:org/absent/66b"), 2, "there is no repository org/absent")


def test_payloads_of_a_published_model(release: Publication, zoo_cli: Cli, tmp_path: Path) -> None:
    import numpy as np

    from tests.zoo_fixtures import samples

    np.save(tmp_path / "x.npy", samples(3).numpy())
    assert zoo_cli("compress", NAME, "x.npy", "x.payloads").returncode == 0
    done = zoo_cli("decompress", "x.payloads", "z.npy", "--side-information", "x.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "z.npy").shape == (3, 32, 32)
