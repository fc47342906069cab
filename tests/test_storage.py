"""Forms of weights in a file: eight bits lose no more than they say, and whatever is not as it was written is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from datagen import generate
from tests.conftest import Cli, assert_one_line_error, small_recipe
from tests.hub_server import HubServer
from tests.test_parts import RATES, network, same
from tests.zoo_fixtures import flip_a_bit, measured, samples, save, untrained
from zoo import parts, registry, release, results, storage
from zoo.checkpoint import check, load_model, read_weights, save_model
from zoo.errors import ZooError
from zoo.parts import needed_bytes
from zoo.storage import SCALE, dequantise, is_matrix, quantise, restore, store

MATRIX = "encoder.3.weight"  # of csinet, [11, 2048]
BIAS = "encoder.3.bias"
NAME = "csinet-tiny-cdl-66b"


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with its matrices in eight bits; tests must not change it."""
    return measured(save(tmp_path_factory.mktemp("quantised") / NAME, untrained("csinet"), "int8", "csinet"))


@pytest.fixture
def model(quantised: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(quantised, tmp_path / quantised.name))


def rewrite(model: Path, change: Callable[[dict[str, Tensor]], object], **settings: object) -> None:
    """Change the weights, the config, and the digest in it."""
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors")
    config = registry.read_config(model) | settings | {"weights_sha256": registry.sha256(model / "model.safetensors")}
    (model / "config.json").write_text(json.dumps(config))


# rounding --------------------------------------------------------------------------------------------------------------------


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Matrices and kernels whose rows and columns differ by orders of magnitude, with zeros among them."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(8, 40))
    kernel = draw(st.sampled_from([(), (1, 1), (3, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    sizes = st.sampled_from([0.0, 1e-42, 1e-30, 1e-6, 0.3, 1.0, 127.0, 1e8, 1e30])
    by_row = torch.tensor(draw(st.lists(sizes, min_size=rows, max_size=rows)))
    by_column = torch.tensor(draw(st.lists(st.sampled_from([0.0, 1e-4, 1.0]), min_size=columns, max_size=columns)))
    values = torch.randn(rows, columns, *kernel, generator=generator)
    if draw(st.booleans()):  # entries in the middle between two multiples
        values = (2 * values).round() / 2
    ones = [1] * len(kernel)
    return values * by_row.view(-1, 1, *ones) * by_column.view(1, -1, *ones)


@given(matrices())
@settings(deadline=None, max_examples=300)
def test_an_entry_errs_by_half_a_scale_at_most_and_rounding_again_changes_nothing(matrix: Tensor) -> None:
    codes, scale = quantise(matrix)
    assert codes.dtype == torch.int8
    assert codes.shape == matrix.shape
    assert int(codes.min()) >= -127
    assert scale.dtype == torch.float32
    assert bool((torch.isfinite(scale) & (scale > 0)).all())
    assert sum(size > 1 for size in scale.shape) <= 1
    read = dequantise(codes, scale)
    assert torch.equal(read.double(), codes.double() * scale.double())  # not rounded again
    assert bool(((read.double() - matrix.double()).abs() <= scale.double() / 2).all())
    codes_again, scale_again = quantise(read)
    assert torch.equal(dequantise(codes_again, scale_again), read)
    if scale_again.shape == scale.shape:
        assert torch.equal(codes_again, codes)
        assert torch.equal(scale_again, scale)


def test_rows_or_columns_whichever_err_less() -> None:
    values, sizes = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), torch.logspace(-4, 0, 64)
    for matrix, shape in ((values * sizes[:, None], (64, 1)), (values * sizes, (1, 64))):
        codes, scale = quantise(matrix)
        assert scale.shape == shape
        loss = (dequantise(codes, scale) - matrix).square().sum() / matrix.square().sum()
        assert loss < 1e-4
    assert quantise(torch.ones(4096, 2))[1].shape == (1, 2)  # a row of two is not worth a scale


def test_large_matrices_and_kernels_are_quantised_and_nothing_else() -> None:
    for shape, wanted in {
        (64, 64): True, (63, 65): False, (2, 4096): True, (4096, 2): True, (32, 32, 2, 2): True, (12, 32, 32): False, (8192,): False, (): False,
    }.items():  # fmt: skip
        assert is_matrix(torch.zeros(shape)) == wanted, shape
    assert not is_matrix(torch.zeros(64, 64, dtype=torch.int64))
    weights = {
        "matrix": torch.randn(64, 64),
        "norm": torch.randn(12, 32, 32),
        "scale": torch.tensor(3e-6),
        "count": torch.tensor(3),
    }
    stored = store(weights, "int8")
    types = {name: str(value.dtype).removeprefix("torch.") for name, value in stored.items()}
    assert types == {
        "matrix": "int8", "matrix" + SCALE: "float32", "norm": "float16", "scale": "float32", "count": "int64"
    }  # fmt: skip
    assert restore(stored, weights, "int8", Path("m")).keys() == weights.keys()
    with pytest.raises(ZooError, match="unknown dtype 'int4'; did you mean 'int8'"):
        store(weights, "int4")


# on disk ---------------------------------------------------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_rounded(quantised: Path, tmp_path: Path) -> None:
    codec, loaded = untrained("csinet"), zoo.load(quantised)
    assert registry.read_config(quantised)["dtype"] == "int8"
    for name, value in loaded.state_dict().items():
        original = codec.state_dict()[name]
        assert value.dtype == original.dtype
        if is_matrix(original):
            assert torch.equal(value, dequantise(*quantise(original))), name
        elif value.is_floating_point() and name != "scale" and not name.endswith("running_var"):
            assert torch.equal(value, original.half().float()), name
        else:
            assert torch.equal(value, original), name
    assert check(quantised, loaded) == 0  # golden vectors are of the rounded weights
    assert check(quantised, zoo.load(quantised, dtype="float64")) < 1e-4
    half = save(tmp_path / "half" / quantised.name, codec, "float16", "csinet")
    sizes = [(path / "model.safetensors").stat().st_size for path in (quantised, half)]
    assert sizes[0] < 0.75 * sizes[1]


def test_bytes_are_the_same_each_time_and_when_stored_again(quantised: Path, tmp_path: Path) -> None:
    for number, codec in enumerate((untrained("csinet"), zoo.load(quantised))):
        path = save(tmp_path / str(number) / quantised.name, codec, "int8", "csinet")
        for file in ("model.safetensors", "config.json", "vectors.safetensors"):
            assert (path / file).read_bytes() == (quantised / file).read_bytes()


def spoilt(change: Callable[[dict[str, Tensor]], object], words: str, **settings: object) -> Any:
    return pytest.param(change, settings, words)


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        spoilt(lambda w: w.pop(MATRIX + SCALE), f"'{MATRIX}' is in eight bits, but has no scale"),
        spoilt(lambda w: w.pop(MATRIX), f"lacks the weight '{MATRIX}' that its config asks for"),
        spoilt(lambda w: w.update({"odd" + SCALE: torch.ones(1)}), "has a scale of 'odd', but no such weight"),
        spoilt(lambda w: w.update({BIAS + SCALE: torch.ones(1)}), f"has a scale of '{BIAS}', which is no matrix in eight bits"),
        spoilt(lambda w: w.update({MATRIX: w[MATRIX].half()}), f"has a scale of '{MATRIX}', which is no matrix in eight bits"),
        spoilt(lambda w: w.update({MATRIX: w[MATRIX].short()}), f"has a scale of '{MATRIX}', which is no matrix"),
        spoilt(lambda w: w.update(surplus=torch.zeros(1, dtype=torch.int8)), "has a weight 'surplus' that its config knows nothing of"),
        spoilt(lambda w: w.update({MATRIX: w[MATRIX].T.contiguous()}), rf"'{MATRIX}' has shape \[2048, 11\]; its config asks for \[11, 2048\]"),
        spoilt(lambda w: w.update({MATRIX + SCALE: torch.ones(11)}), rf"the scale of '{MATRIX}' is float32 \[11\]; it must be float32 \[11, 1\] or \[1, 2048\]"),
        spoilt(lambda w: w.update({MATRIX + SCALE: torch.ones(11, 1).half()}), rf"the scale of '{MATRIX}' is float16 \[11, 1\]; it must be"),
        spoilt(lambda w: w[MATRIX + SCALE].view(-1)[3:4].fill_(0), f"the scale of '{MATRIX}' holds values that are not positive and finite"),
        spoilt(lambda w: w[MATRIX + SCALE].view(-1)[3:4].neg_(), f"the scale of '{MATRIX}' holds values that are not positive"),
        spoilt(lambda w: w[MATRIX + SCALE].view(-1)[3:4].fill_(torch.nan), f"the scale of '{MATRIX}' holds values that are not positive and finite"),
        spoilt(lambda w: w[MATRIX + SCALE].view(-1)[3:4].fill_(torch.inf), "holds values that are not positive and finite"),
        spoilt(lambda w: w[MATRIX + SCALE].fill_(3e38), f"'{MATRIX}' holds values that are not finite"),
        spoilt(lambda w: w[BIAS].fill_(torch.nan), f"'{BIAS}' holds values that are not finite"),
        spoilt(lambda w: w.update({BIAS: w[BIAS].char()}), f"'{BIAS}' is in eight bits, but has no scale"),
        spoilt(lambda w: w.update({BIAS: w[BIAS].int()}), f"'{BIAS}' is int32; its config asks for float32"),
        spoilt(lambda w: w.update({"encoder.0.1.num_batches_tracked": torch.tensor(1.0)}), "num_batches_tracked' is float32; its config asks for int64"),
        spoilt(lambda w: None, f"has a weight '{MATRIX}{SCALE}' that its config knows nothing of|'{MATRIX}' is int8; its config asks for", dtype="float16"),
        spoilt(lambda w: None, "config.json: unknown dtype 'int4'; did you mean 'int8'?", dtype="int4"),
        spoilt(lambda w: None, r"config.json: unknown dtype '\[8\]'", dtype=[8]),
    ],
)  # fmt: skip
def test_what_is_not_as_it_was_written_is_refused_in_one_line(
    model: Path, zoo_cli: Cli, change: Callable[[dict[str, Tensor]], object], settings: dict[str, object], words: str
) -> None:
    rewrite(model, change, **settings)
    with pytest.raises(ZooError, match=words) as refused:
        zoo.load(model)
    assert "\n" not in str(refused.value)


def test_the_command_line_tells_of_it(model: Path, zoo_cli: Cli) -> None:
    assert zoo_cli("check", model).returncode == 0
    rewrite(model, lambda weights: weights.pop(MATRIX + SCALE))
    told = zoo_cli("check", model)
    assert_one_line_error(told, 1, "1 of 1 models are not what their records say")
    assert f"bad  {model}: {model}: '{MATRIX}' is in eight bits, but has no scale\n" in told.stdout


def test_one_flipped_bit(model: Path) -> None:
    flip_a_bit(model / "model.safetensors")
    with pytest.raises(ZooError, match=r"model\.safetensors was changed: its SHA-256 is not the one on record"):
        zoo.load(model)


def test_weights_that_are_not_finite_are_not_stored(tmp_path: Path) -> None:
    for value in (torch.nan, torch.inf):
        codec = untrained("csinet")
        codec.get_parameter(MATRIX).view(-1)[5] = value
        with pytest.raises(ZooError, match=f"the scale of '{MATRIX}' holds values that are not positive and finite"):
            save(tmp_path / NAME, codec, "int8", "csinet")
        assert list(tmp_path.iterdir()) == []


# parts and the Hub -----------------------------------------------------------------------------------------------------------


def rates(collection: Path, form: str) -> list[Path]:
    """Three rates of a network that share most weights, with results."""
    codec = network()
    found = (save(collection / f"gd-csi-tiny-cdl-{rate}b", codec.at(rate), form, "gd-csi") for rate in RATES)
    return [measured(path) for path in found]


def test_shared_matrices_are_stored_once_with_their_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MATRIX", 512)
    whole = rates(tmp_path / "whole", "int8")
    for limit in (parts.FILE_BYTES, 30_000):  # in one part, and in several
        monkeypatch.setattr(parts, "FILE_BYTES", limit)
        shared = [Path(shutil.copytree(path, tmp_path / str(limit) / path.name)) for path in whole]
        before = needed_bytes(shared)
        parts.share(shared)
        held = list((tmp_path / str(limit)).rglob("*.safetensors"))
        assert max(file.stat().st_size for file in held if file.name != "vectors.safetensors") <= limit
        for path, original in zip(shared, whole, strict=True):
            assert any(name.endswith(SCALE) for name in read_weights(path))
            assert same(load_model(path).state_dict(), load_model(original).state_dict())
            assert check(path, load_model(path)) == 0
        assert needed_bytes(shared) == before < 0.5 * sum(needed_bytes([path]) for path in whole)
    [part, *_] = (tmp_path / "30000").glob("*-part-*.safetensors")
    part.unlink()
    with pytest.raises(ZooError, match=f"{part.name} is missing"):
        load_model(shared[0])


def test_the_hub_and_back(
    quantised: Path, hub: HubServer, manifests: Path, zoo_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token("org"))
    registry.write_index(quantised.parent)
    done = zoo_cli("publish", "csinet-tiny-cdl", "--repo", "org/csinet-tiny", "--from", quantised.parent)
    assert done.returncode == 0, done.stderr
    for model in (NAME, "hf:org/csinet-tiny/66b"):
        assert same(zoo.load(model).state_dict(), load_model(quantised).state_dict())


# releases --------------------------------------------------------------------------------------------------------------------


def test_a_release_takes_the_smallest_form_that_keeps_the_quality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_ = zoo.data.Store(generate(small_recipe(train=0, val=0, test=8), tmp_path / "test.zarr").path)
    model = save(tmp_path / NAME, untrained("csinet"), "float32", "csinet")
    losses = {"float32": 0.0, "float16": 0.01, "int8": 0.02}

    def evaluate(path: Path, *arguments: Any, **options: Any) -> dict[str, Any]:
        levels = [
            {"snr_db": snr, "nmse": 0.5, "nmse_db": -3 + extra + losses[path.parent.name]}
            for snr, extra in ((None, 0), (30.0, 1))
        ]
        return {
            **results_of,
            "weights_sha256": registry.read_config(path)["weights_sha256"],
            "side_information": levels,
        }

    results_of = results.read(measured(model)) or {}
    monkeypatch.setattr(release, "evaluate", evaluate)
    for int8_db, half_db, wanted in (
        (0.02, 0.01, "int8"),
        (0.06, 0.04, "float16"),
        (0.05, 0.05, "float32"),
        (0.0, 0.1, "int8"),
    ):
        losses |= {"float16": half_db, "int8": int8_db}
        [found] = release.release([model], store_, tmp_path / "shipped")
        assert found["dtype"] == wanted == registry.read_config(tmp_path / "shipped" / NAME)["dtype"]
        assert found["half_precision_loss_db"] == pytest.approx(half_db)
        assert found["int8_loss_db"] == pytest.approx(int8_db)
        assert sorted(path.name for path in (tmp_path / "shipped").iterdir()) == [NAME, "index.json"]
        assert check(tmp_path / "shipped" / NAME, load_model(tmp_path / "shipped" / NAME)) == 0


def test_a_release_into_eight_bits(quantised: Path, zoo_cli: Cli, tmp_path: Path) -> None:
    test = generate(small_recipe(train=0, val=0, test=8), tmp_path / "test.zarr").path
    [found] = json.loads(zoo_cli("release", quantised, "--data", test, "--into", "shipped", "--json").stdout)
    assert found["dtype"] == "int8"  # of weights that are multiples of a scale already: nothing is lost
    assert found["int8_loss_db"] < 0.05
    shipped = tmp_path / "shipped" / NAME
    assert (shipped / "model.safetensors").read_bytes() == (quantised / "model.safetensors").read_bytes()


def test_rates_that_share_weights_are_shipped_in_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MATRIX", 512)
    losses = {"float32": 0.0, "float16": 0.01, "int8": 0.01}
    made = {form: rates(tmp_path / form, form) for form in losses}
    family = {
        made["int8"][number].name: {
            form: release._Draft(made[form][number], [], loss + 0.1 * (number == 0 and form == "int8"))
            for form, loss in losses.items()
        }
        for number in range(len(RATES))
    }
    assert set(release._forms(family).values()) == {"float16"}
    others = list(family)[1:]
    assert set(release._forms({name: family[name] for name in others}).values()) == {"int8"}
    apart = {}
    for number, name in enumerate(family):  # of which each has weights of its own
        path = tmp_path / "apart"
        drafts = {}
        for form in losses:
            save_model(
                path / form / name, network(number).at(RATES[number]), {"name": name, "architecture": "gd-csi"},
                {"x": samples(2), "y": samples(2, 1)}, form,
            )  # fmt: skip
            drafts[form] = release._Draft(path / form / name, [], family[name][form].loss_db)
        apart[name] = drafts
    assert list(release._forms(apart).values()) == ["float16", "int8", "int8"]
