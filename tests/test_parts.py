"""Parts: what the rates of one network share is stored once, nothing is lost by it, and nothing else passes for it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from datagen import generate
from tests.conftest import Cli, assert_one_line_error, small_recipe
from tests.hub_server import HubServer
from tests.zoo_fixtures import flip_a_bit, measured, samples, save, untrained
from zoo import config, parts, publication, registry, results
from zoo.checkpoint import check, load_model, write_weights
from zoo.errors import ZooError
from zoo.hub import is_cached
from zoo.locate import locate
from zoo.models.gdcsi import GDCSI

FAMILY, REPO = "gd-csi-tiny-cdl", "org/gd-csi-tiny"
RATES = (64, 128, 192)
NAMES = [f"{FAMILY}-{rate}b" for rate in RATES]


def network(seed: int = 0) -> GDCSI:
    codec = untrained("gd-csi-paper", rates=RATES, width=8)
    assert isinstance(codec, GDCSI)
    generator = torch.Generator().manual_seed(seed)
    for weight in codec.parameters():
        weight.add_(0.01 * torch.randn(weight.shape, generator=generator))
    return codec


def write(codec: GDCSI, collection: Path, *rates: int) -> list[Path]:
    """Models of some rates of a network, whole, with results."""
    found = (save(collection / f"{FAMILY}-{rate}b", codec.at(rate), "float16", "gd-csi") for rate in rates or RATES)
    return [measured(path) for path in found]


def weights(model: str | Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = zoo.load(model).state_dict()
    return found


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def lying(collection: Path) -> list[str]:
    """Names of the parts in a directory."""
    return sorted(path.name for path in collection.glob("*.safetensors"))


def size(collection: Path) -> int:
    return sum(path.stat().st_size for path in collection.rglob("*.safetensors") if path.name != "vectors.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rates of a network, each with all of its weights; tests must not change it."""
    path = tmp_path_factory.mktemp("whole")
    write(network(), path)
    registry.write_index(path)
    return path


@pytest.fixture(scope="module")
def shared(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with what they share stored once; tests must not change it."""
    path = Path(shutil.copytree(whole, tmp_path_factory.mktemp("shared") / "models"))
    parts.share(registry.models(path))
    registry.write_index(path)
    return path


@pytest.fixture
def mine(shared: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(shared, tmp_path / "models"))


# stored once -----------------------------------------------------------------------------------------------------------------


def test_what_rates_share_is_stored_once_and_no_bit_is_lost(whole: Path, shared: Path) -> None:
    [part] = lying(shared)
    assert part == registry.part_name(FAMILY, registry.sha256(shared / part))
    one = (whole / NAMES[0] / "model.safetensors").stat().st_size
    assert (shared / part).stat().st_size > 0.8 * one
    assert size(whole) > 2.9 * one
    assert size(shared) < 1.5 * one
    index = registry.read_index(shared)
    for name in NAMES:
        assert index[name][part] == registry.sha256(shared / part)
        assert same(weights(shared / name), weights(whole / name))
        assert check(shared / name, zoo.load(shared / name)) == 0
        files = {path.name: path.read_bytes() for path in (shared / name).iterdir()}
        assert files["vectors.safetensors"] == (whole / name / "vectors.safetensors").read_bytes()
        found, settings = results.read(shared / name), registry.read_config(shared / name)
        before = results.read(whole / name)
        assert found is not None
        assert before is not None
        assert found == {**before, "weights_sha256": settings["weights_sha256"]}
        assert settings["weights_sha256"] == registry.sha256(shared / name / "model.safetensors")
        assert list(settings["parts"]) == [part]


def test_sharing_again_changes_nothing(mine: Path) -> None:
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    parts.share(registry.models(mine))
    registry.write_index(mine)
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before


def test_models_that_have_nothing_in_common_stay_as_they_are(collection: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(collection, tmp_path / "copy"))
    parts.share(registry.models(copy))
    assert registry.write_index(copy) == registry.read_index(collection)
    assert lying(copy) == []


def test_full_size_networks_fit_into_files_of_30_mb(tmp_path: Path) -> None:
    for recipe, most in (("gd-csi-paper-multirate", 33e6), ("gd-csi-paper", 30.5e6)):  # of all rates together
        chosen = config.load(recipe)
        codec = GDCSI(GDCSI.Config.model_validate(chosen.codec))
        for single in codec.singles():
            path = tmp_path / recipe / f"{recipe}-cdl-{single.bits}b"
            path.mkdir(parents=True)
            half = {name: value.half() for name, value in single.state_dict().items()}
            facts = {"format_version": 1, "name": path.name, "architecture": "gd-csi"}
            write_weights(path, half, {**facts, "codec": single.config.model_dump(mode="json")})
            assert (path / "model.safetensors").stat().st_size > 30e6
        parts.share(registry.models(tmp_path / recipe))
        assert max(path.stat().st_size for path in (tmp_path / recipe).rglob("*.safetensors")) <= 30e6
        assert size(tmp_path / recipe) < most
        load_model(path)


def test_weights_that_a_file_has_no_room_for(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FILE_BYTES", 30_000)
    for names in (NAMES, NAMES[:1]):  # what is shared, what is not
        copy = tmp_path / str(len(names))
        for name in names:
            shutil.copytree(whole / name, copy / name)
        parts.share(registry.models(copy))
        assert max(path.stat().st_size for path in copy.rglob("*.safetensors") if "vectors" not in path.name) <= 30_000
        assert len(lying(copy)) > 2
        assert all(same(weights(copy / name), weights(whole / name)) for name in names)


# what is not as it was is refused ---------------------------------------------------------------------------------------------


def test_one_flipped_bit_in_a_part(mine: Path, zoo_cli: Cli) -> None:
    [part] = mine.glob("*.safetensors")
    flip_a_bit(part)
    with pytest.raises(ZooError, match=rf"{part.name} was changed: its SHA-256 is not the one on record"):
        zoo.load(mine / NAMES[0])
    told = zoo_cli("check", *(mine / name for name in NAMES))
    assert_one_line_error(told, 1, "3 of 3 models are not what their records say")
    (mine / "index.json").unlink()
    with pytest.raises(ZooError, match=rf"{part.name} was changed"):
        zoo.load(mine / NAMES[0])
    (mine / NAMES[0] / part.name).write_bytes(part.read_bytes())  # nor in the model's directory
    with pytest.raises(ZooError, match=rf"{NAMES[0]}/{part.name} was changed"):
        zoo.load(mine / NAMES[0])


def test_a_part_that_is_missing_is_one_line(mine: Path, zoo_cli: Cli) -> None:
    [part] = mine.glob("*.safetensors")
    part.unlink()
    told = zoo_cli("info", mine / NAMES[0])
    assert told.returncode == 0
    for name, *command in ((NAMES[0], "check"), (NAMES[1], "bench")):
        told = zoo_cli(*command, mine / name)
        line = f"{part} is missing, with weights of {name}; copy it there, or get the model again\n"
        assert line in told.stdout + told.stderr
        assert told.returncode in (1, 2)
    assert_one_line_error(zoo_cli("index", mine), 2, f"{part} is missing")


def test_weights_sha256_stands_for_the_parts_too(mine: Path, tmp_path: Path) -> None:
    write(network(1), tmp_path / "other")
    parts.share(registry.models(tmp_path / "other"))
    [other] = (tmp_path / "other").glob("*.safetensors")
    shutil.copy(other, mine)
    (mine / "index.json").unlink()
    edit_config(mine / NAMES[0], parts={other.name: registry.sha256(other)})
    with pytest.raises(ZooError, match=r"model\.safetensors and config\.json name different parts"):
        zoo.load(mine / NAMES[0])


def test_a_weight_in_two_files(mine: Path) -> None:
    [part] = mine.glob("*.safetensors")
    own, model = load_file(mine / NAMES[0] / "model.safetensors"), mine / NAMES[0]
    again = {"scale": load_file(part)["scale"]}
    settings = registry.read_config(model)
    write_weights(model, {**own, **again}, settings, settings["parts"])
    (mine / "index.json").unlink()
    with pytest.raises(ZooError, match=rf"the weight 'scale' is in {part.name} and in another file"):
        zoo.load(model)


@pytest.mark.parametrize(
    "listed",
    [
        ["a"],
        {"../gd-csi-part-000000000000.safetensors": "0" * 64},
        {"gd-csi-part-000000000000.safetensors": "1" * 64},
        {"gd-csi-part-000000000000.safetensors": "0"},
        {"gd-csi-part-000000000000.pkl": "0" * 64},
        {"model.safetensors": "0" * 64},
        {"gd-csi-part-000000000000.safetensors": None},
    ],
)
def test_odd_parts_in_a_config(mine: Path, listed: Any) -> None:
    edit_config(mine / NAMES[0], parts=listed)
    with pytest.raises(ZooError, match="parts: they must be names of parts, each with its SHA-256"):
        zoo.load(mine / NAMES[0])


def test_tampered_weights_are_not_shared(whole: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    file = copy / NAMES[0] / "model.safetensors"
    save_file({**load_file(file), "scale": torch.tensor(1.0)}, file)
    with pytest.raises(ZooError, match=r"model\.safetensors was changed"):
        parts.share(registry.models(copy))
    assert lying(copy) == []


def edit_config(model: Path, **changes: Any) -> None:
    settings = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**settings, **changes}))


# elsewhere -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
def test_a_model_goes_with_its_part(
    shared: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    there = Path(shutil.copytree(shared / NAMES[1], tmp_path / "elsewhere" / NAMES[1]))
    [part] = lying(shared)
    shutil.copy(shared / part, there if inside else there.parent)
    assert same(weights(there), weights(whole / NAMES[1]))
    registry.write_index(there.parent)
    assert part in registry.read_index(there.parent)[NAMES[1]]
    monkeypatch.chdir(there)
    assert same(weights("."), weights(whole / NAMES[1]))


# replaced --------------------------------------------------------------------------------------------------------------------


def test_a_model_that_is_replaced_leaves_the_others_alone(mine: Path, shared: Path) -> None:
    [old] = lying(mine)
    kept = {name: registry.read_config(mine / name)["weights_sha256"] for name in NAMES[1:]}
    parts.share(write(network(1), mine, 64))
    assert lying(mine) == [old]
    assert not registry.read_config(mine / NAMES[0])["parts"]
    for name, digest in kept.items():
        assert registry.read_config(mine / name)["weights_sha256"] == digest
        assert same(weights_unindexed(mine / name), weights(shared / name))
    parts.share(write(network(), mine, 64))  # and back: it takes the part that is there
    assert registry.write_index(mine) == registry.read_index(shared)
    parts.share(write(network(1), mine, 64, 128))
    assert len(lying(mine)) == 2
    assert old in lying(mine)
    parts.share(write(network(1), mine, 192))
    assert old not in lying(mine)
    [new] = lying(mine)
    assert {name: list(registry.read_config(mine / name)["parts"]) for name in NAMES} == {name: [new] for name in NAMES}


def weights_unindexed(model: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_model(model).state_dict()
    return found


def test_other_files_are_not_pruned(mine: Path) -> None:
    orphan = mine / registry.part_name("csinet-cdl", "0" * 64)
    other = mine / "notes-part-1.safetensors"
    for path in (orphan, other):
        path.write_bytes(b"")
    parts.share(registry.models(mine))
    assert not orphan.exists()
    assert other.exists()
    assert len(lying(mine)) == 2


def test_a_cut_leaves_every_model_whole(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy", ignore=shutil.ignore_patterns("index.json")))
    rewrite = parts._rewrite

    def killed(model: Path, *arguments: Any) -> None:
        if model.name == NAMES[1]:
            raise KeyboardInterrupt
        rewrite(model, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "_rewrite", killed)
        with pytest.raises(KeyboardInterrupt):
            parts.share(registry.models(copy))
    for name in NAMES:
        assert same(weights(copy / name), weights(whole / name))
    parts.share(registry.models(copy))
    assert len(lying(copy)) == 1
    assert sorted(path.name for path in copy.iterdir()) == sorted([*NAMES, *lying(copy)])


def test_release_of_rates_and_of_one_again(
    whole: Path, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = generate(small_recipe(train=0, val=0, test=8), tmp_path / "test.zarr").path
    command = ("release", "--data", store, "--into", "shipped")
    told = zoo_cli(*command, *(whole / name for name in NAMES))
    assert told.returncode == 0, told.stderr
    shipped = tmp_path / "shipped"
    [part] = lying(shipped)
    before = registry.read_index(shipped)
    again = json.loads(zoo_cli(*command, whole / NAMES[0], "--json").stdout)
    assert lying(shipped) == [part]
    after = registry.read_index(shipped)
    assert again == [results.read(shipped / NAMES[0])]
    assert again[0]["weights_sha256"] == after[NAMES[0]]["model.safetensors"]
    assert {name: after[name] for name in NAMES[1:]} == {name: before[name] for name in NAMES[1:]}
    assert all(after[name][part] == before[name][part] for name in NAMES)
    monkeypatch.setattr(registry, "WEIGHTS", shipped)
    assert zoo_cli("check").returncode == 0


def test_an_index_may_share(whole: Path, shared: Path, zoo_cli: Cli, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    assert zoo_cli("index", copy).returncode == 0
    assert registry.read_index(copy) == registry.read_index(whole)
    told = zoo_cli("index", copy, "--share")
    assert told.stdout == f"{copy}/index.json: 3 models\n"
    assert registry.read_index(copy) == registry.read_index(shared)


# on the Hub ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def publish(hub: HubServer, manifests: Path, zoo_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setenv("HF_TOKEN", hub.token("org"))
    return lambda collection: zoo_cli("publish", FAMILY, "--repo", REPO, "--from", collection)


def head(hub: HubServer) -> Any:
    repository = hub.repository(REPO)
    return repository.commits[repository.branches["main"]]


def test_the_hub_and_back(
    hub: HubServer, publish: Callable[..., Any], shared: Path, zoo_cli: Cli, tmp_path: Path, manifests: Path
) -> None:
    [part] = lying(shared)
    done = publish(shared)
    assert done.returncode == 0, done.stderr
    assert [path for path in head(hub) if path.endswith(part)] == [part]
    made = publication.published()[NAMES[0]]
    assert not is_cached(made, NAMES[0])
    hub.requests.clear()
    assert same(weights(NAMES[0]), weights(shared / NAMES[0]))
    assert len(hub.calls("GET")) == 5
    assert is_cached(made, NAMES[0])
    assert not is_cached(made, NAMES[1])
    hub.requests.clear()
    assert same(weights(NAMES[1]), weights(shared / NAMES[1]))
    assert hub.calls(f"GET .*{part}") == []  # it is in the cache
    hub.requests.clear()
    assert same(weights(f"hf:{REPO}/64b@main"), weights(shared / NAMES[0]))
    zoo.load(NAMES[0], local_files_only=True)
    assert hub.calls("GET") == []
    [cached] = (tmp_path / "hub-cache").glob(f"models--*/snapshots/*/{part}")
    target = cached.readlink()
    cached.unlink()
    assert not is_cached(made, NAMES[0])
    cached.symlink_to(target)
    path, digests = locate(NAMES[0])
    assert digests == registry.read_index(shared)[NAMES[0]]
    [row] = json.loads(zoo_cli("pull", NAMES[0], "--json").stdout)
    assert row["bytes"] == sum(file.stat().st_size for file in [*path.iterdir(), shared / part])
    publish(shared)
    assert len(hub.repository(REPO).commits) == 2  # the same again changes nothing


def test_a_part_on_the_hub_is_held_to_its_digest(
    hub: HubServer, publish: Callable[..., Any], shared: Path, tmp_path: Path
) -> None:
    [part] = lying(shared)
    assert publish(shared).returncode == 0
    zoo.load(NAMES[0])
    [cached] = (tmp_path / "hub-cache").glob(f"models--*/snapshots/*/{part}")
    data = cached.read_bytes()
    cached.resolve().write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ZooError, match=rf"{part} of {REPO} is damaged in the cache"):
        zoo.load(NAMES[0], local_files_only=True)
    zoo.load(NAMES[0])  # mended
    assert cached.read_bytes() == data
    hub.tamper(REPO, part, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ZooError, match=rf"{part} of {REPO}.* is not the file on record"):
        zoo.load(NAMES[0], cache_dir=tmp_path / "fresh")


def test_a_new_version_takes_its_part_and_leaves_no_orphan(
    hub: HubServer, publish: Callable[..., Any], mine: Path
) -> None:
    [old] = lying(mine)
    assert publish(mine).returncode == 0
    first = publication.published()[NAMES[0]].commit
    parts.share(write(network(1), mine, 64))  # one is replaced: the others' part stays
    (mine / "index.json").unlink()
    assert publish(mine).returncode == 0
    assert old in head(hub)
    assert same(weights(NAMES[0]), weights(mine / NAMES[0]))
    parts.share(write(network(1), mine))
    assert publish(mine).returncode == 0
    [new] = lying(mine)
    assert [path for path in head(hub) if "-part-" in path] == [new]
    assert same(weights(NAMES[2]), weights(mine / NAMES[2]))
    assert zoo.load(f"hf:{REPO}/64b@{first}").bits == 64


def test_a_repository_without_a_manifest(hub: HubServer, shared: Path, manifests: Path) -> None:
    [part] = lying(shared)
    files = {f"deep/64b/{path.name}": path.read_bytes() for path in (shared / NAMES[0]).iterdir()}
    hub.commit("evil/repo", files)
    with pytest.raises(ZooError, match=rf"evil/repo has no file deep/{part}"):
        zoo.load("hf:evil/repo/deep/64b")
    hub.commit("evil/repo", {f"deep/{part}": (shared / part).read_bytes()})
    assert same(weights("hf:evil/repo/deep/64b"), weights(shared / NAMES[0]))
    root = {path.name: path.read_bytes() for path in [*(shared / NAMES[0]).iterdir(), shared / part]}
    hub.commit("evil/root", root)
    assert same(weights("hf:evil/root"), weights(shared / NAMES[0]))


def test_samples_pass_through_a_shared_model(shared: Path, whole: Path) -> None:
    x, y = samples(3), samples(3, 1)
    for name in NAMES:
        payloads = zoo.load(shared / name).compress(x)
        assert payloads == zoo.load(whole / name).compress(x)
        assert torch.equal(
            zoo.load(shared / name).decompress(payloads, y), zoo.load(whole / name).decompress(payloads, y)
        )
