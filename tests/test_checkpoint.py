"""Models on disk: what is written comes back, and whatever is not as it was written is refused by name."""

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
from tests.zoo_fixtures import NETWORKS, flip_a_bit, samples, save, untrained
from zoo import registry
from zoo.checkpoint import check, load_model
from zoo.errors import CheckError, ZooError
from zoo.locate import locate, unknown_model
from zoo.registry import read_config

WEIGHT = "encoder.3.bias"


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    """A copy of the small model that a test may spoil."""
    return Path(shutil.copytree(small_model, tmp_path / small_model.name))


def rewrite_weights(model: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the weights, and the digest in the config with them."""
    file = model / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    rewrite_config(model, weights_sha256=registry.sha256(file))


def rewrite_config(model: Path, **changes: Any) -> None:
    file = model / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


# what is written comes back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", NETWORKS)
def test_what_was_saved_is_what_is_loaded(family: str, tmp_path: Path) -> None:
    codec = untrained(family)
    path = save(tmp_path / f"{family}-cdl-{codec.bits}b", codec)
    loaded = zoo.load(path)
    x, y = samples(5), samples(5, 1).numpy()
    payloads = codec.compress(x)
    assert loaded.compress(x) == payloads
    assert (loaded.decompress(payloads, y) == codec.decompress(payloads, y)).all()
    assert loaded.config == codec.config
    assert not loaded.training
    assert check(path, loaded) < 1e-6
    assert check(path, zoo.load(path, dtype="float64")) < 1e-4
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", NETWORKS)
def test_half_precision_files_hold_rounded_weights(family: str, dtype: str, tmp_path: Path) -> None:
    codec = untrained(family)
    whole = save(tmp_path / f"{family}-cdl-{codec.bits}b", codec) / "model.safetensors"
    path = save(tmp_path / dtype / f"{family}-cdl-{codec.bits}b", codec, dtype)
    assert (path / "model.safetensors").stat().st_size < 0.65 * whole.stat().st_size
    assert read_config(path)["dtype"] == dtype
    loaded = zoo.load(path)
    assert check(path, loaded) < 1e-6
    assert loaded.scale == codec.scale  # which is not rounded
    for name, weight in loaded.named_parameters():
        assert weight.dtype == torch.float32, name
        assert torch.equal(weight, codec.get_parameter(name).to(getattr(torch, dtype)).float()), name


def test_golden_vectors_are_of_the_very_file(small_model: Path) -> None:
    vectors = load_file(small_model / "vectors.safetensors")
    codec = load_model(small_model)
    x, y = (torch.view_as_complex(vectors[name]) for name in ("x", "y"))
    assert [bytes(row.tolist()) for row in vectors["payload"]] == codec.compress(x)
    assert torch.equal(torch.view_as_real(codec.decompress(codec.compress(x), y)), vectors["z"])


def test_saving_replaces_whole_or_not_at_all(model: Path) -> None:
    before = {file.name: file.read_bytes() for file in model.iterdir()}
    codec = untrained("csinet", rate=72)
    with pytest.raises(ZooError, match="x is complex64"):
        zoo.checkpoint.save_model(model, codec, {"name": model.name, "architecture": "csinet"}, {"x": samples(1)[0]})
    assert {file.name: file.read_bytes() for file in model.iterdir()} == before
    (model / "results.json").write_text("{}")  # of the old weights
    save(model, codec)
    assert zoo.load(model).bits == 72
    assert not (model / "results.json").exists()
    assert [entry.name for entry in model.parent.iterdir()] == [model.name]


# what is not as it was written is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop(WEIGHT), f"lacks the weight '{WEIGHT}'"),
        (
            lambda weights: weights.update(surplus=torch.zeros(1)),
            "has a weight 'surplus' that its config knows nothing of",
        ),
        (
            lambda weights: weights.update({WEIGHT: torch.zeros(12)}),
            rf"'{WEIGHT}' has shape \[12\]; its config asks for \[11\]",
        ),
        (lambda weights: weights[WEIGHT].fill_(torch.nan), f"'{WEIGHT}' holds values that are not finite"),
        (lambda weights: weights[WEIGHT][3:4].fill_(torch.inf), f"'{WEIGHT}' holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    model: Path, change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    rewrite_weights(model, change)
    with pytest.raises(ZooError, match=words):
        zoo.load(model)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codec": {"rate": 66, "widht": 3}}, "config.json: codec: unknown key 'widht'"),
        ({"codec": {"rate": 66, "element_bit": 6}}, "unknown key 'element_bit'; did you mean 'element_bits'?"),
        ({"codec": {"rate": 64}}, "rate 64 is no multiple of element_bits 6"),
        ({"codec": {"rate": "66"}}, "rate = '66': it should be a valid integer"),
        ({"codec": {"rate": 72}}, r"has shape \[11\]; its config asks for \[12\]"),
        ({"format_version": 2}, "has format_version 2; this zoo reads 1"),
        ({"format_version": None}, "has format_version None"),
        ({"architecture": "csi-net"}, "unknown architecture 'csi-net'; did you mean 'csinet'?"),
        ({"architecture": "zzz"}, "unknown architecture 'zzz'; allowed: klt"),
        ({"architecture": None}, "lacks 'architecture'"),
        ({"weights_sha256": None}, "lacks 'weights_sha256'"),
        ({"weights_sha256": "0" * 64}, "model.safetensors was changed"),
    ],
)
def test_configs_that_do_not_fit_are_refused_by_name(model: Path, changes: dict[str, Any], words: str) -> None:
    rewrite_config(model, **changes)
    with pytest.raises(ZooError, match=words):
        zoo.load(model)


def test_a_config_that_is_no_json(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(ZooError, match=r"config\.json is not JSON"):
        zoo.load(model)


def test_one_flipped_bit_in_the_weights(model: Path) -> None:
    flip_a_bit(model / "model.safetensors")
    with pytest.raises(ZooError, match=r"model\.safetensors was changed: its SHA-256 is not the one on record"):
        zoo.load(model)


def test_weights_that_are_no_safetensors(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(b"PK\x03\x04")
    rewrite_config(model, weights_sha256=registry.sha256(file))
    with pytest.raises(ZooError, match=r"model\.safetensors is no safetensors file"):
        zoo.load(model)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "vectors.safetensors"])
def test_an_index_guards_every_file(model: Path, file: str) -> None:
    assert registry.write_index(model.parent)[model.name].keys() >= {file}
    assert zoo.load(model).bits == 66
    with (model / file).open("ab") as handle:
        handle.write(b" ")
    with pytest.raises(ZooError, match=rf"{file} was changed"):
        zoo.load(model)
    (model / file).unlink()
    with pytest.raises(ZooError, match=rf"{file} is missing|has no {file}|no model directory"):
        zoo.load(model)


def test_an_index_that_is_none(model: Path) -> None:
    for text, words in (("[]", "is no index of models"), ('{"a": 1}', "is no index of models"), ("{", "cannot read")):
        (model.parent / "index.json").write_text(text)
        with pytest.raises(ZooError, match=words):
            zoo.load(model)


def test_missing_weights_without_an_index(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ZooError, match=r"model\.safetensors is missing"):
        zoo.load(model)


# golden vectors --------------------------------------------------------------------------------------------------------------


def rewrite_vectors(model: Path, name: str, change: Callable[[Tensor], Tensor]) -> None:
    vectors = load_file(model / "vectors.safetensors")
    save_file({**vectors, name: change(vectors[name])}, model / "vectors.safetensors")


def test_golden_payloads_that_differ(model: Path) -> None:
    rewrite_vectors(model, "payload", lambda payload: payload ^ torch.tensor([[1], [0], [0], [0]], dtype=torch.uint8))
    with pytest.raises(CheckError, match="1 of 4 golden payloads differ"):
        check(model, load_model(model))


def test_golden_reconstructions_that_differ(model: Path) -> None:
    rewrite_vectors(model, "z", lambda z: 1.0005 * z)  # as another machine may round
    assert check(model, load_model(model)) == pytest.approx(5e-4, rel=0.01)
    rewrite_vectors(model, "z", lambda z: 1.01 * z)
    with pytest.raises(CheckError, match=r"golden reconstructions differ by 1\.0e-02 relative"):
        check(model, load_model(model))


def test_other_weights_do_not_pass_for_the_old_ones(model: Path) -> None:
    rewrite_weights(model, lambda weights: weights["out.weight"].mul_(1.1))
    with pytest.raises(CheckError, match="golden reconstructions differ"):
        check(model, zoo.load(model))


def test_golden_vectors_that_are_missing(model: Path) -> None:
    (model / "vectors.safetensors").unlink()
    with pytest.raises(ZooError, match=r"vectors\.safetensors is missing"):
        check(model, load_model(model))


# names -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three models in the place of those that come with the package."""
    for name, family, fields in (
        ("csinet-tiny-66b", "csinet", {}),
        ("csinet-tiny-132b", "csinet", {"rate": 132}),
        ("gd-csi-cdl-64b", "gd-csi", {}),
    ):
        save(tmp_path / name, untrained(family, **fields), architecture=family)
    registry.write_index(tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    return tmp_path


def test_models_by_name(collection: Path) -> None:
    assert zoo.list_models() == ["csinet-tiny-66b", "csinet-tiny-132b", "gd-csi-cdl-64b"]
    assert zoo.list_models("gd-csi-*") == ["gd-csi-cdl-64b"]
    assert zoo.load("csinet-tiny-132b").bits == 132
    with pytest.raises(ZooError, match=r"unknown model 'csinet-tiny-128b'; nearest: csinet-tiny-132b"):
        zoo.load("csinet-tiny-128b")
    with pytest.raises(ZooError, match=r"unknown model 'gd-csi-paper-cdl-64b'; nearest: gd-csi-cdl-64b"):
        zoo.load("gd-csi-paper-cdl-64b")
    with pytest.raises(ZooError, match="is no model directory"):
        zoo.load(collection)
    with pytest.raises(ZooError, match="is no model directory"):
        zoo.load("no/such/directory")
    with pytest.raises(ZooError, match="see zoo list"):
        zoo.load("zzzzzzzz")


def test_the_nearest_model_is_of_the_same_data_set_family_and_rate() -> None:
    families, rates = ("gd-csi", "klt", "csinet"), ("64b", "128b", "256b")
    known = [f"{family}-{data}-{rate}" for data in ("cdl", "cost2100") for family in families for rate in rates]
    known += ["rd-jscc-cdl-k32", "klt-jscc-cost2100-k32"]
    for name, nearest in (
        ("gd-csi-paper-cost2100-128b", "gd-csi-cost2100-128b, gd-csi-cost2100-64b, gd-csi-cost2100-256b"),
        ("gd-csi-inh-256b", "gd-csi-"),  # nothing of that data set: bits, not symbols, all the same
        ("csinet-cdl-132b", "csinet-cdl-128b"),
        ("klt-cost2010-64b", "klt-cost2100-64b"),
        ("rd-jscc-cost2100-k32", "klt-jscc-cost2100-k32, rd-jscc-cdl-k32"),
        ("gd-csi-cdl", "gd-csi-cdl-"),  # no name of a model
    ):
        assert unknown_model(name, known).startswith(f"unknown model {name!r}; nearest: {nearest}")


def test_parts_of_a_name() -> None:
    assert registry.model_name("gd-csi", "cdl", "64b") == "gd-csi-cdl-64b"
    assert registry.family_of("gd-csi-cdl-64b") == "gd-csi"
    assert registry.rate_of("gd-csi-cdl-64b") == 64
    assert registry.rate_of("rd-jscc-cdl-k32") == 32
    assert registry.family_of("rd-jscc-cdl-k32") == "rd-jscc"
    with pytest.raises(ZooError, match="is not named <family>-<dataset>-<rate>b or -k<symbols>"):
        registry.rate_of("gd-csi")


def test_a_relative_path_finds_its_index(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(collection / "csinet-tiny-66b")
    assert locate(".")[1] == registry.read_index(collection)["csinet-tiny-66b"]


def test_devices_and_number_formats(small_model: Path) -> None:
    assert zoo.load(small_model, dtype="bfloat16").scale.dtype == torch.bfloat16
    with pytest.raises(ZooError, match="unknown dtype 'int8'; allowed: float32, float64"):
        zoo.load(small_model, dtype="int8")
    for device in ("cuda:99", "abacus"):
        with pytest.raises(ZooError, match=f"device '{device}' cannot be used"):
            zoo.load(small_model, device=device)
