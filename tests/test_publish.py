"""Publishing on the Hub: what goes up, what is refused, what is put on record, and that it comes back."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import RepoCard

import zoo
from tests.conftest import Cli, assert_one_line_error
from tests.hub_server import HubServer
from tests.zoo_fixtures import measured, save, untrained
from zoo import publication, registry
from zoo import publish as publishing
from zoo.cards import Entry, card, picture
from zoo.publication import Publication
from zoo.registry import read_config

REPO = "org/csinet-tiny"
RATES = ("66b", "132b")
Publish = Callable[..., Any]


@pytest.fixture
def token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Log in as somebody who may write to org."""
    token = hub.token("org")
    monkeypatch.setenv("HF_TOKEN", token)
    return token


@pytest.fixture
def publish(collection: Path, manifests: Path, zoo_cli: Cli) -> Publish:
    """Run zoo publish on the collection."""

    def run(*options: str | Path, repo: str = REPO, collection: Path = collection) -> Any:
        return zoo_cli("publish", "csinet-tiny", "--repo", repo, "--from", collection, *options)

    return run


@pytest.fixture
def copy(collection: Path, tmp_path: Path) -> Path:
    """A copy of the collection, without an index, to be changed."""
    return Path(shutil.copytree(collection, tmp_path / "copy", ignore=shutil.ignore_patterns("index.json")))


def record(manifests: Path) -> Publication | None:
    return publication.read(manifests / "csinet-tiny.json")


def nothing_happened(hub: HubServer, manifests: Path) -> bool:
    commits = [len(repository.commits) for repository in hub.repositories.values()]
    return not list(manifests.iterdir()) and all(count == 1 for count in commits)


# what goes up ----------------------------------------------------------------------------------------------------------------


def test_publish_then_load(
    hub: HubServer, token: str, publish: Publish, manifests: Path, collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = publish("--tag", "v1")
    assert done.returncode == 0, done.stderr
    made = record(manifests)
    assert made is not None
    assert done.stdout.startswith(f"{REPO}@{made.commit}, tag v1: 2 models, ")
    repository = hub.repository(REPO)
    assert len(repository.commits) == 2  # the repository's own first, and one for all
    assert repository.branches == {"main": made.commit}
    assert repository.tags == {"v1": made.commit}
    assert not repository.private
    there = repository.commits[made.commit]
    models = {f"{rate}/{file}" for rate in RATES for file in registry.FILES}
    assert there.keys() == models | {"README.md", "rd.png", "manifest.json", ".gitattributes"}
    listed = json.loads(there["manifest.json"].data)
    assert listed == made.family.model_dump()
    for path, file in made.family.files.items():
        assert (hashlib.sha256(there[path].data).hexdigest(), len(there[path].data)) == (file.sha256, file.bytes)
    assert len(hub.calls("POST .*/commit/main")) == 1
    monkeypatch.delenv("HF_TOKEN")
    for name in ("csinet-tiny-66b", f"hf:{REPO}/66b", f"hf:{REPO}/66b@v1", f"hf:{REPO}/66b@{made.commit}"):
        assert zoo.load(name).bits == 66
    told = [done.stdout, done.stderr, (manifests / "csinet-tiny.json").read_text(), *hub.calls()]
    assert token not in "".join(told) + "".join(file.data.decode("latin-1") for file in there.values())


def test_the_card(hub: HubServer, token: str, publish: Publish) -> None:
    assert publish().returncode == 0
    repository = hub.repository(REPO)
    files = repository.commits[repository.branches["main"]]
    page = RepoCard(files["README.md"].data.decode())
    assert (page.data.get("license"), page.data.get("library_name")) == ("apache-2.0", "csi-feedback-zoo")
    results = page.data.get("model-index")
    assert [entry["name"] for entry in results] == ["csinet-tiny-66b", "csinet-tiny-132b"]
    [evaluation] = results[0]["results"]
    assert evaluation["dataset"]["name"] == "cdl-c-fdd-v1"
    assert [metric["value"] for metric in evaluation["metrics"]] == [66, -5.0, -5.0]
    assert "| `csinet-tiny-66b` | 66 | 9 | 1000 | -5.00 | -5.00 |" in page.text
    for words in (
        "![NMSE](rd.png)",
        f'zoo.load("hf:{REPO}/66b")',
        "@misc{kim_gd_csi",
        "@misc{ankireddy_rd_jscc",
        "sha256:00",
    ):
        assert words in page.text
    assert files["rd.png"].data.startswith(b"\x89PNG")


def test_the_card_of_models_that_send_symbols() -> None:
    points = [
        {"k": k, "snr_db": snr, "steps": 2, "bits": bits, "cnr_db": None, "nmse_db": -k / 2 - snr}
        for k in (8, 16)
        for snr in (-10.0, 5.0)
        for bits in (None, 4)
    ]
    data = {
        "name": "cost2100-outdoor-v1",
        "scenario": "cost2100",
        "recipe_digest": "sha256:11",
        "split": "test",
        "samples": 10,
    }
    results = {
        "model": "rd-jscc-cost2100-k16",
        "data": data,
        "parameters": 9,
        "symbols": [8, 16],
        "channel": "rayleigh",
        "points": points,
    }
    config = {"architecture": "rd-jscc", "dataset": {"name": "cost2100-outdoor-v1", "recipe_digest": "sha256:11"}}
    entries = [Entry("rd-jscc-cost2100-k16", "k16", Path(), config, results)]
    page = RepoCard(card("rd-jscc-cost2100", "org/rd", entries, {"cost2100-outdoor-v1": "sha256:22"}))
    [model] = page.data.get("model-index")
    assert [metric["value"] for metric in model["results"][0]["metrics"]] == [6.0, -9.0, 2.0, -13.0]
    assert "| `rd-jscc-cost2100-k16` | 8 | 2 | analog | perfect CSI | 6.00 | -9.00 |" in page.text
    assert "manifest `sha256:22`" in page.text
    assert "model.encode(x, snr_db=5)" in page.text
    assert picture(entries).startswith(b"\x89PNG")


def test_embedded_models_are_the_default(hub: HubServer, zoo_cli: Cli, manifests: Path) -> None:
    told = json.loads(zoo_cli("publish", "klt-cdl", "--repo", "org/klt-cdl", "--dry-run", "--json").stdout)
    own = [path for path in told["files"] if path.endswith("/model.safetensors")]
    assert own == [f"{rate}b/model.safetensors" for rate in (64, 128, 192, 256, 320)]
    assert "datagen regenerate manifests/datasets/cdl-c-fdd-v1.json" in told["card"]


def test_a_dry_run_touches_nothing(
    hub: HubServer, token: str, publish: Publish, manifests: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = publish("--dry-run", "--tag", "v1", "--private")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +\d+ \d+  66b/model.safetensors$", done.stdout, re.MULTILINE)
    assert re.search(r"bytes would go to org/csinet-tiny, with this card:\n\n---\n", done.stdout)
    assert hub.calls() == []
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_again_changes_nothing(hub: HubServer, token: str, publish: Publish, manifests: Path) -> None:
    assert json.loads(publish("--tag", "v1", "--json").stdout)["changed"] is True
    text = (manifests / "csinet-tiny.json").read_text()
    stamp = (manifests / "csinet-tiny.json").stat().st_mtime_ns
    for options in (["--tag", "v1"], []):
        hub.requests.clear()
        again = publish(*options)
        assert "nothing new to publish; downloaded anew and verified" in again.stdout
        assert hub.calls("(POST|PUT|DELETE)") == []
    assert len(hub.repository(REPO).commits) == 2
    assert (manifests / "csinet-tiny.json").read_text() == text
    assert (manifests / "csinet-tiny.json").stat().st_mtime_ns == stamp
    hub.commit(REPO, {"NOTES.md": b"by hand"})  # which is none of ours
    assert json.loads(publish("--json").stdout)["changed"] is False
    (manifests / "csinet-tiny.json").unlink()  # a record that was lost is made again
    assert json.loads(publish("--json").stdout)["changed"] is True


def test_a_new_version(hub: HubServer, token: str, publish: Publish, copy: Path, manifests: Path) -> None:
    publish("--tag", "v1", collection=copy)
    old = record(manifests)
    assert old is not None
    shutil.rmtree(copy / "csinet-tiny-132b")
    measured(copy / "csinet-tiny-66b", nmse_db=-6.0)
    hub.commit(REPO, {"NOTES.md": b"by hand"})
    refused = publish("--tag", "v1", collection=copy)
    assert_one_line_error(refused, 2, f"has a tag v1 already, at another commit, {old.commit}; give another --tag")
    assert len(hub.repository(REPO).commits) == 3
    done = publish("--tag", "v2", collection=copy)
    assert done.returncode == 0, done.stderr
    new = record(manifests)
    assert new is not None
    there = hub.repository(REPO).commits[new.commit]
    assert not [path for path in there if path.startswith("132b")]
    assert "NOTES.md" in there
    assert b"-6.00" in there["README.md"].data
    assert zoo.load(f"hf:{REPO}/132b@{old.commit}").bits == 132
    assert hub.repository(REPO).tags == {"v1": old.commit, "v2": new.commit}


def test_private(hub: HubServer, token: str, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    assert publish("--private").returncode == 0
    assert hub.repository(REPO).private
    assert publish("--private").returncode == 0
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(zoo.ZooError, match="or it is private"):
        zoo.load("csinet-tiny-66b")
    monkeypatch.setenv("HF_TOKEN", token)
    zoo.load("csinet-tiny-66b")
    hub.repository(REPO).private = False
    assert_one_line_error(publish("--private"), 2, "is public already; make it private in its settings")


# what is refused -------------------------------------------------------------------------------------------------------------


def _no_results(model: Path) -> None:
    (model / "results.json").unlink()


def _results_of_other_weights(model: Path) -> None:
    results = json.loads((model / "results.json").read_text())
    (model / "results.json").write_text(json.dumps({**results, "weights_sha256": "0" * 64}))


def _golden_vectors_of_another(model: Path) -> None:
    shutil.copy(model.parent / "csinet-tiny-132b/vectors.safetensors", model)


def _no_golden_vectors(model: Path) -> None:
    (model / "vectors.safetensors").unlink()


def _edited_after_the_index(model: Path) -> None:
    registry.write_index(model.parent)
    (model / "results.json").write_text("{}")


def _another_name(model: Path) -> None:
    config = {**read_config(model), "name": "csinet-other-66b"}
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (_no_results, 2, "was not evaluated: it has no results.json; zoo eval"),
        (_results_of_other_weights, 2, "is of other weights; zoo eval"),
        (_golden_vectors_of_another, 1, "golden"),
        (_no_golden_vectors, 2, "holds no golden vectors"),
        (_edited_after_the_index, 2, "results.json was changed"),
        (_another_name, 2, "holds the model csinet-other-66b"),
    ],
)
def test_what_was_not_checked_and_evaluated_is_refused(
    hub: HubServer, token: str, publish: Publish, copy: Path, manifests: Path, spoil: Callable[[Path], None], code: int, words: str
) -> None:  # fmt: skip
    spoil(copy / "csinet-tiny-66b")
    assert_one_line_error(publish(collection=copy), code, words)
    assert hub.calls() == []
    assert nothing_happened(hub, manifests)


def test_unknown_families(
    hub: HubServer, token: str, zoo_cli: Cli, collection: Path, manifests: Path, tmp_path: Path
) -> None:
    run = ("publish", "csinet", "--repo", REPO)
    assert_one_line_error(zoo_cli(*run, "--from", collection), 2, "has no family 'csinet'; it has csinet-tiny")
    assert_one_line_error(zoo_cli(*run, "--from", tmp_path / "none"), 2, "there is no directory")
    assert_one_line_error(zoo_cli(*run, "--from", manifests), 2, "it has no models")
    there = tmp_path / "none" / "manifests"
    tiny = ("publish", "csinet-tiny", "--repo", REPO, "--from", collection)
    assert_one_line_error(zoo_cli(*tiny, "--manifests", there), 2, f"there is no directory {there}")
    assert_one_line_error(
        zoo_cli("publish", "csinet-tiny", "--repo", "a/b/c", "--from", collection), 2, "is no name of a repository"
    )
    assert nothing_happened(hub, manifests)


@pytest.mark.parametrize(
    ("namespace", "role", "repo", "words"),
    [
        (None, "", REPO, "there is no token to publish with; hf auth login, or set HF_TOKEN"),
        ("", "", REPO, "the Hub does not know this token; hf auth login"),
        ("org", "read", REPO, f"the token may only read; make one that may write to {REPO}"),
        ("me", "write", REPO, f"the token of me may not write to {REPO}; give a repository of your own"),
        ("me", "write", "org/public", "the token of me may not write to org/public"),
        ("me", "write", "org/private", "the token of me may not write to org/private"),
    ],
)
def test_tokens_that_do_not_do(
    hub: HubServer, publish: Publish, manifests: Path, monkeypatch: pytest.MonkeyPatch, namespace: str | None, role: str, repo: str, words: str
) -> None:  # fmt: skip
    hub.create("org/public")
    hub.create("org/private", private=True)
    token = hub.token(namespace, role) if namespace else "hf_nobody"
    if namespace is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    done = publish(repo=repo)
    assert_one_line_error(done, 2, words)
    assert token not in done.stdout + done.stderr
    assert nothing_happened(hub, manifests)


@pytest.mark.parametrize(
    ("path", "data", "words"),
    [
        ("model.safetensors", b"weights", "holds something else; give csinet-tiny a repository of its own"),
        ("manifest.json", b'{"files": []}', "manifest.json of org/csinet-tiny is no manifest of models"),
    ],
)
def test_a_repository_of_something_else(
    hub: HubServer, token: str, publish: Publish, manifests: Path, path: str, data: bytes, words: str
) -> None:
    hub.commit(REPO, {path: data})
    assert_one_line_error(publish(), 2, words)
    assert len(hub.repository(REPO).commits) == 2
    assert not list(manifests.iterdir())


def test_another_family_s_repository(
    hub: HubServer, token: str, publish: Publish, tmp_path: Path, zoo_cli: Cli
) -> None:
    assert publish().returncode == 0
    measured(save(tmp_path / "more/csinet-mini-66b", untrained("csinet")))
    refused = zoo_cli("publish", "csinet-mini", "--repo", REPO, "--from", tmp_path / "more")
    assert_one_line_error(refused, 2, "holds the family csinet-tiny; give csinet-mini a repository of its own")


# half-way ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "how", "words", "commits"),
    [
        ("GET /api/models/org/csinet-tiny$", {"status": 500}, "the Hub answers 500 when asked for org/csinet-tiny", 0),
        ("POST .*/preupload/", {"status": 503, "times": 99}, "the Hub answers 503", 1),
        ("PUT /lfs/", {"status": 500, "times": 99}, "the Hub answers 500", 1),
        ("POST .*/verify", {"status": 404}, "the Hub answers 404", 1),
        ("POST .*/commit/main", {"status": 500}, "the Hub answers 500", 1),
        ("POST .*/commit/main", {"status": 412}, "somebody else changed org/csinet-tiny meanwhile", 1),
        ("POST .*/commit/main", {"cut": 0}, "cannot reach the Hub at http://127.0.0.1", 2),
        ("POST .*/tag/", {"status": 500}, "the Hub answers 500", 2),
        ("GET .*/132b/model.safetensors", {"corrupt": True, "times": 2}, "is not what was sent, and not put on record: 132b/model", 2),
        ("GET .*/README.md", {"status": 404, "times": 2}, "is not what was sent, and not put on record", 2),
    ],
)  # fmt: skip
def test_half_a_publication_is_not_on_record_and_goes_on(
    hub: HubServer, token: str, publish: Publish, manifests: Path, pattern: str, how: dict[str, Any], words: str, commits: int
) -> None:  # fmt: skip
    hub.fail(pattern, **how)
    assert_one_line_error(publish("--tag", "v1"), 2, words)
    assert list(manifests.iterdir()) == []
    assert sum(len(repository.commits) for repository in hub.repositories.values()) == commits
    hub.faults.clear()
    done = publish("--tag", "v1")
    assert done.returncode == 0, done.stderr
    assert len(hub.repository(REPO).commits) == 2
    assert hub.repository(REPO).tags == {"v1": hub.repository(REPO).branches["main"]}
    assert record(manifests) is not None


def test_somebody_else_commits_meanwhile(
    hub: HubServer, token: str, publish: Publish, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> Any:
        found = changes(*arguments)
        hub.commit(REPO, {"NOTES.md": b"by another"})
        return found

    changes = publishing._changes
    monkeypatch.setattr(publishing, "_changes", meanwhile)
    assert_one_line_error(
        publish(), 2, "somebody else changed org/csinet-tiny meanwhile; look at it, then publish again"
    )
    repository = hub.repository(REPO)
    assert repository.commits[repository.branches["main"]].keys() == {".gitattributes", "NOTES.md"}
    assert not list(manifests.iterdir())


def test_no_network(
    hub: HubServer, token: str, publish: Publish, manifests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert_one_line_error(publish(), 2, "cannot reach the Hub at http://127.0.0.1:9 for org/csinet-tiny: ConnectError")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert_one_line_error(publish(), 2, "org/csinet-tiny")
    assert nothing_happened(hub, manifests)
