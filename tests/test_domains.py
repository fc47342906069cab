"""NMSE in the spatial-frequency domain: against the definition, over stores of every convention, on the command line, in pictures."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import datagen
from datagen import COST2100Recipe, InHRecipe
from tests.conftest import Cli, assert_one_line_error
from tests.zoo_fixtures import save, untrained
from zoo import data, metrics, plot, results
from zoo.checkpoint import save_model
from zoo.errors import ZooError
from zoo.evaluate import evaluate, reference
from zoo.evaluate_jscc import evaluate_jscc
from zoo.models.csinet import CsiNet
from zoo.models.klt_jscc import KLTJSCC, KLTJSCCConfig

BAND = 64
FIELDS: dict[str, Any] = {"train": 0, "val": 0, "test": 50, "subcarriers": BAND, "keep_band": BAND}
DOMAIN = ("--domain", "spatial-frequency")


@pytest.fixture(scope="module")
def band(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the indoor office that keeps its whole band."""
    path = tmp_path_factory.mktemp("band") / "band.zarr"
    datagen.generate(InHRecipe.model_validate(FIELDS), path, shard_samples=256)
    return path


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("codec") / "csinet-inh-66b", untrained("csinet", side_information=False))


@pytest.fixture(scope="module")
def jscc(band: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear code of two symbols, fitted to those very samples."""
    path = tmp_path_factory.mktemp("jscc") / "klt-jscc-inh-k2"
    x = data.Store(band).read("test").x
    code = KLTJSCC.fit(x, KLTJSCCConfig(symbols=(2,)))
    save_model(path, code, {"name": path.name, "architecture": "klt-jscc"}, {"x": x[:4]})
    return path


def defined(h: NDArray[Any], estimate: NDArray[Any], official: bool = False) -> NDArray[np.float64]:
    """The error as the paper has it: padded with zeros, transformed, held to H."""
    if official:
        angles = np.fft.ifft(np.fft.ifftshift(estimate, axes=1), axis=1)
        back = np.fft.fft(angles, h.shape[2], axis=2)
    else:
        back = np.fft.fft2(estimate, h.shape[1:])
    lost: NDArray[np.float64] = np.square(np.abs(h - back)).sum((1, 2)) / np.square(np.abs(h)).sum((1, 2))
    return lost


# the measure -----------------------------------------------------------------------------------------------------------------


def test_parseval_by_hand() -> None:
    h = np.array([[[2, 0]], [[1, 1]]], complex)  # one antenna, two subcarriers: delays (1, 1) and (1, 0)
    crop, tail = metrics.crop_and_tail(h, 1)
    assert crop[:, 0, 0] == pytest.approx([1, 1])
    assert tail == pytest.approx([1, 0])
    assert metrics.relative_errors(crop, crop, tail) == pytest.approx([1 / 2, 0])  # (1, 1) for (2, 0) misses 2 of 4
    assert metrics.relative_errors(crop, 0 * crop, tail) == pytest.approx([1, 1])
    assert metrics.relative_errors(crop, 2 * crop, tail) == pytest.approx([1, 1])  # (2, 2) for (2, 0): 4 of 4
    with pytest.raises(ValueError, match=r"shapes \(2, 1, 1\) and \(1,\) differ"):
        metrics.relative_errors(crop, crop, tail[:1])


@pytest.mark.parametrize("official", [False, True])
def test_errors_are_as_defined(official: bool) -> None:
    h, noise = np.random.default_rng(0).standard_normal((2, 70, 4, 10, 2)).view(complex)[..., 0]  # 70: some pieces
    crop, tail = metrics.crop_and_tail(h, 3, official=official)
    for estimate in (crop, crop + 0.1 * noise[:, :, :3], noise[:, :, :3]):
        found = metrics.relative_errors(crop, estimate, tail)
        np.testing.assert_allclose(found, defined(h, estimate, official))


@pytest.mark.parametrize(
    "recipe",
    [
        InHRecipe.model_validate(FIELDS),
        COST2100Recipe.model_validate({**FIELDS, "convention": "physical"}),
        COST2100Recipe.model_validate({**FIELDS, "environment": "indoor"}),
    ],
    ids=lambda recipe: f"{recipe.scenario} {getattr(recipe, 'convention', '')}",
)
def test_crop_and_band_of_a_store_belong_together(recipe: Any, tmp_path: Path) -> None:
    """In every convention of datagen the crop of H is X."""
    store = data.Store(datagen.generate(recipe, tmp_path / "s.zarr", shard_samples=256).path)
    x, h = (store.read_array("test", name, 3, 23).numpy() for name in "XH")
    crop, tail = reference(x, "spatial-frequency", store, "test", 3)
    assert tail is not None
    assert np.linalg.norm(crop - x) < 1e-5 * np.linalg.norm(x)
    share = metrics.relative_errors(crop, crop, tail)
    official = getattr(recipe, "convention", "") == "official"
    np.testing.assert_allclose(share, defined(h, x, official), rtol=1e-4, atol=1e-6)
    assert (share > 1e-4).all()


# evaluation ------------------------------------------------------------------------------------------------------------------


def tail_share(band: Path) -> float:
    store = data.Store(band)
    return float(defined(store.read_array("test", "H", 0, 50).numpy(), store.read("test").x.numpy()).mean())


def test_a_codec_that_loses_nothing_loses_the_tail(band: Path, codec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.Store, "batches", partialmethod(data.Store.batches, size=32))
    monkeypatch.setattr("zoo.models.base.BATCH", 20)  # batches of 20, 12 and 18: each with its own part of the band
    sent: list[NDArray[Any]] = []

    def compress(codec: CsiNet, x: NDArray[Any], effort: int) -> list[bytes]:
        sent.append(x)
        return [bytes(codec.payload_bytes)] * len(x)

    monkeypatch.setattr(CsiNet, "compress", compress)
    monkeypatch.setattr(CsiNet, "decompress", lambda codec, payloads, y: sent[-1])
    found = evaluate(codec, data.Store(band), domain="spatial-frequency")
    assert [len(x) for x in sent] == [1, 20, 12, 18]
    assert found["domain"] == "spatial-frequency"
    assert found["side_information"][0]["nmse"] == pytest.approx(tail_share(band), rel=1e-4)
    monkeypatch.setattr(CsiNet, "decompress", lambda codec, payloads, y: sent[-1] / 2)
    cropped = evaluate(codec, data.Store(band))
    assert cropped["domain"] == "angular-delay"
    assert cropped["side_information"][0]["nmse"] == pytest.approx(1 / 4)


def test_symbols_that_lose_nothing_lose_the_tail(band: Path, jscc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data.Store, "batches", partialmethod(data.Store.batches, size=32))
    monkeypatch.setattr("zoo.evaluate_jscc.BATCH", 20)
    sent: list[Tensor] = []
    encode = KLTJSCC.encode

    def remember(code: KLTJSCC, x: Tensor, *how: Any) -> Any:
        sent.append(x)
        return encode(code, x, *how)

    monkeypatch.setattr(KLTJSCC, "encode", remember)
    monkeypatch.setattr(KLTJSCC, "decode", lambda code, received, *how: sent[-1])
    at = {"snr_db": [5.0], "downlink_snr_db": 0.0}
    found = evaluate_jscc(jscc, data.Store(band), **at, domain="spatial-frequency")  # type: ignore[arg-type]
    assert found["domain"] == "spatial-frequency"
    assert found["points"][0]["nmse"] == pytest.approx(tail_share(band), rel=1e-4)
    monkeypatch.setattr(KLTJSCC, "decode", lambda code, received, *how: sent[-1] / 2)  # the same beam
    cropped = evaluate_jscc(jscc, data.Store(band), **at)  # type: ignore[arg-type]
    assert cropped["domain"] == "angular-delay"
    assert cropped["points"][0]["nmse"] == pytest.approx(1 / 4)
    assert cropped["points"][0]["bler"] == pytest.approx(found["points"][0]["bler"], rel=1e-4)


def test_a_store_must_keep_the_whole_band_of_what_is_estimated(
    codec: Path, band: Path, small_store: datagen.Store, tmp_path: Path
) -> None:
    makes = r"datagen inh --keep-band 64 --train 0 --val 0 --out band\.zarr"
    for kept, words in ((0, "no frequency response H of X in test"), (63, "H of 63 subcarriers only in test")):
        recipe = InHRecipe.model_validate({**FIELDS, "keep_band": kept, "test": 4})
        part = data.Store(datagen.generate(recipe, tmp_path / f"{kept}.zarr", shard_samples=256).path)
        evaluate(codec, part, samples=1)
        with pytest.raises(
            ZooError, match=f"{words}; the spatial-frequency domain takes all 64 subcarriers, as kept by: {makes}"
        ):
            evaluate(codec, part, domain="spatial-frequency")
    with pytest.raises(
        ZooError, match=r"no frequency response H of Z in val; .* datagen inh --keep-band 667 --train 0"
    ):
        evaluate(codec, data.Store(small_store.path), "val", domain="spatial-frequency")
    with pytest.raises(ZooError, match="there is no domain 'delay'; give angular-delay or spatial-frequency"):
        evaluate(codec, data.Store(band), domain="delay")
    later = data.Store(band)
    later.target = "Z"  # as a store of this format might have it, whose H then is of X
    with pytest.raises(ZooError, match="no frequency response H of Z in test"):
        later.require_band("test", later.target)


# command line ----------------------------------------------------------------------------------------------------------------


def test_command(band: Path, jscc: Path, codec: Path, zoo_cli: Cli) -> None:
    for model in (jscc, codec):
        nmse = {}
        for domain in metrics.DOMAINS:
            told = zoo_cli("eval", model, "--data", band, "--domain", domain, "--out", f"{domain}.json")
            assert told.returncode == 0, told.stderr
            assert ("in the spatial-frequency domain" in told.stdout) == (domain == "spatial-frequency")
            kept = results.read(Path(f"{domain}.json"))
            assert kept is not None
            assert kept["domain"] == domain
            nmse[domain] = kept["points"][-1]["nmse"] if "points" in kept else kept["side_information"][0]["nmse"]
        cropped, whole = nmse["angular-delay"], nmse["spatial-frequency"]
        assert min(cropped, 1) < whole < max(cropped, 1)  # of the tail everything is lost, and no more
    both = [f"{domain}.json" for domain in metrics.DOMAINS]  # of one and the same model
    refused = zoo_cli("plot", "rd", *both, "--snr", "none", "--out", "p.png")
    assert_one_line_error(
        refused,
        2,
        "errors in different domains cannot share a picture",
        "csinet-inh-66b in the spatial-frequency domain",
    )


def test_command_refuses(codec: Path, jscc: Path, small_store: datagen.Store, band: Path, zoo_cli: Cli) -> None:
    before = sorted(Path().rglob("*"))
    hint = "datagen inh --keep-band 667 --train 0 --test 0 --out band.zarr"
    for model, of in ((codec, "Z"), (jscc, "X")):
        refused = zoo_cli("eval", model, "--data", small_store.path, "--split", "val", *DOMAIN, "--out", "r.json")
        assert_one_line_error(refused, 2, f"has no frequency response H of {of} in val", hint)
    refused = zoo_cli("eval", codec, "--data", band, "--domain", "delay", "--out", "r.json")
    assert_one_line_error(refused, 2, "'delay' is not one of 'angular-delay', 'spatial-frequency'")
    assert sorted(Path().rglob("*")) == before


# pictures --------------------------------------------------------------------------------------------------------------------

DATA = {"name": "cost2100-outdoor-v1", "scenario": "cost2100", "recipe_digest": "0", "split": "test", "samples": 2000}
CODEC = {"model": "csinet-cost2100-132b", "bits": 132, "decoder_has_y": False, "data": DATA, "parameters": 1}
SENT = {"model": "klt-jscc-cost2100-k16", "symbols": [16], "channel": "rayleigh", "data": DATA, "parameters": 1}
POINT = {"k": 16, "snr_db": 5.0, "steps": 0, "bits": None, "cnr_db": None, "nmse_db": -5.0, "bler": 0.1}
WHOLE = {"domain": "spatial-frequency"}


def test_rates_of_one_domain() -> None:
    old = {**CODEC, "side_information": [{"snr_db": None, "nmse_db": -5.0}]}  # from before there was a choice
    new, whole = {**old, "domain": "angular-delay"}, {**old, **WHOLE}
    cropped = plot.rates([old, new])
    assert cropped.title.endswith("test samples")
    assert "GD-CSI, official set" in cropped.published
    found = plot.rates([whole])
    assert found.title.endswith("test samples, spatial-frequency domain")
    assert found.published == {}  # those are of the crop
    with pytest.raises(ZooError, match=r"different domains cannot .* angular-delay .* spatial-frequency"):
        plot.rates([old, whole])
    with pytest.raises(ZooError, match="limits and published points are of the angular-delay domain"):
        plot.rates([whole], {"rows": []})
    assert results.summary(old) == "-5.00 dB"
    assert results.summary(whole) == "-5.00 dB in the spatial-frequency domain"


def test_curves_of_one_domain() -> None:
    old: dict[str, Any] = {**SENT, "points": [POINT]}
    other = {**old, "model": "adjscc-cost2100-k16"}
    whole = {**other, **WHOLE}
    assert plot.curves([whole]).title.splitlines()[0].endswith("test samples, spatial-frequency domain")
    assert "domain" not in plot.curves([old, {**other, "domain": "angular-delay"}]).title
    for other in (whole, {**whole, "model": old["model"]}):  # of another model, of the same
        with pytest.raises(ZooError, match="errors in different domains cannot share a picture"):
            plot.curves([old, other])
    with pytest.raises(ZooError, match="limits and published points are of the angular-delay domain"):
        plot.curves([whole], with_published=True)
    assert "domain" not in plot.curves([old, whole], measure="bler").title  # those are the same in either
    bound = {
        "link": {"k": 16, "channel": "rayleigh"},
        "rows": [{"name": "a", "snr_db": [5], "bits": [1], "nmse_db": [-9]}],
    }
    with pytest.raises(ZooError, match="limits and published points are of the angular-delay domain"):
        plot.curves([whole], [bound])


def test_a_linear_estimate_over_the_whole_band(band: Path, jscc: Path) -> None:
    """What is decoded in truth, not by a stand-in: the error of each sample by the definition."""
    store, at = data.Store(band), {"snr_db": [5.0]}
    seen: list[NDArray[Any]] = []
    decode = KLTJSCC.decode

    def spied(code: KLTJSCC, *given: Any) -> Tensor:
        seen.append(decode(code, *given).numpy())
        return torch.from_numpy(seen[-1])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KLTJSCC, "decode", spied)
        found = evaluate_jscc(jscc, store, **at, domain="spatial-frequency")  # type: ignore[arg-type]
    h = store.read_array("test", "H", 0, 50).numpy()
    assert found["points"][0]["nmse"] == pytest.approx(defined(h, seen[-1]).mean(), rel=1e-5)
