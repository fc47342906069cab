"""Evaluation, its records, pictures of them, and what a codec costs."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from datagen import Store, generate
from tests.conftest import small_recipe
from tests.zoo_fixtures import save, untrained
from zoo import data, metrics, plot, registry, results
from zoo.bench import bench, macs
from zoo.errors import CheckError, ZooError
from zoo.evaluate import evaluate
from zoo.models.csinet import CsiNet
from zoo.models.gdcsi import GDCSI, GDCSIConfig


@pytest.fixture
def store(small_store: Store) -> data.Store:
    return data.Store(small_store.path)


# evaluation ------------------------------------------------------------------------------------------------------------------


def test_results_are_what_payloads_and_estimates_say(
    small_model: Path, store: data.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.data.READ", 64)  # 150 samples in three pieces, and those in batches of 256
    found = evaluate(small_model, store, "train", 150, snr_db=[None], rho_samples=100, command="zoo eval")
    codec, batch = zoo.load(small_model), store.read("train", 0, 150)
    assert batch.y is not None
    payloads, z = codec.compress(batch.x), batch.z.numpy()
    estimate = codec.decompress(payloads, batch.y.numpy())
    [level] = found["side_information"]
    assert level["nmse"] == pytest.approx(metrics.nmse(z, estimate))
    assert level["nmse_db"] == pytest.approx(metrics.nmse_db(z, estimate))
    errors = metrics.relative_errors(z, estimate)
    assert level["nmse_standard_error"] == pytest.approx(np.std(errors, ddof=1) / np.sqrt(150))
    assert level["rho"] == pytest.approx(metrics.rho(z[:100], estimate[:100], 667), abs=1e-5)
    assert level["rho_samples"] == 100
    assert (found["bits"], found["payload_bytes"]) == (66, len(payloads[0])) == (66, 9)
    assert found["data"] == {
        "name": "cdl-c-fdd-v1", "scenario": "cdl", "recipe_digest": small_recipe().digest, "split": "train", "samples": 150,
    }  # fmt: skip
    assert found["model"] == "csinet-tiny-66b"
    assert found["weights_sha256"] == registry.sha256(small_model / "model.safetensors")
    assert found["parameters"] == sum(weight.numel() for weight in codec.parameters())
    assert found["command"] == "zoo eval"
    assert all(found["throughput"][f"{side}_samples_per_second"] > 0 for side in ("compress", "decompress"))


def test_noise_on_the_side_information(small_model: Path, store: data.Store) -> None:
    found = evaluate(small_model, store, "val", snr_db=[None, 30.0, -10.0], rho_samples=0)
    clean, fine, coarse = found["side_information"]
    assert [level["snr_db"] for level in (clean, fine, coarse)] == [None, 30.0, -10.0]
    assert abs(fine["nmse"] - clean["nmse"]) < abs(coarse["nmse"] - clean["nmse"])
    assert clean["rho"] is None
    alone = evaluate(small_model, store, "val", snr_db=[-10.0], rho_samples=0)
    assert alone["side_information"] == [coarse]  # the noise depends on nothing but its level
    assert found["data"]["samples"] == store.sizes["val"]


def test_a_codec_without_side_information_has_one_result(store: data.Store, tmp_path: Path) -> None:
    path = save(tmp_path / "csinet-tiny-66b", untrained("csinet", side_information=False))
    found = evaluate(path, store, "val")
    assert found["decoder_has_y"] is False
    assert [level["snr_db"] for level in found["side_information"]] == [None]


SEARCHED: dict[str, Any] = {"target": "x", "side_information": False}  # a codec whose sender can foresee its receiver


def test_a_sender_may_make_an_effort(store: data.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy, eager = (
        save(tmp_path / f"gd-csi-{name}-64b", untrained("gd-csi", **SEARCHED, effort=effort), architecture="gd-csi")
        for name, effort in (("lazy", 0), ("eager", 2))
    )
    found = {
        (path, effort): evaluate(path, store, "val", effort=effort) for path in (lazy, eager) for effort in (None, 0, 2)
    }
    assert [result["effort"] for result in found.values()] == [0, 0, 2, 2, 0, 2]
    error = {key: result["side_information"][0]["nmse"] for key, result in found.items()}
    assert error[lazy, None] == error[lazy, 0] == error[eager, 0]
    assert error[lazy, 2] == error[eager, None] == error[eager, 2]
    asked: list[int | None] = []
    compress = GDCSI.compress

    def noted(codec: GDCSI, x: Any, effort: int | None = None) -> list[bytes]:
        asked.append(effort)
        return compress(codec, x, effort)

    monkeypatch.setattr(GDCSI, "compress", noted)
    evaluate(eager, store, "val", 3)
    assert asked == [2, 2]  # a sample to get ready, and the three
    store.read = None  # type: ignore[assignment, method-assign]  # refused before any work
    with pytest.raises(ZooError, match="effort 3 is not one of this model's: 0, 1, 2"):
        evaluate(lazy, store, "val", effort=3)


def test_results_say_what_effort_they_are_of() -> None:
    old = result("gd-csi-cdl-64b", 64, -5.0)
    assert results.effort(old) == 0
    assert results.summary({**old, "effort": 0}) == results.summary(old)
    assert results.summary({**old, "effort": 2}) == f"{results.summary(old)} at effort 2"


def test_one_sample_has_no_standard_error(small_model: Path, store: data.Store) -> None:
    found = evaluate(small_model, store, "val", 1)
    assert found["side_information"][0]["nmse_standard_error"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_nothing_but_bytes_reaches_the_receiver(
    small_model: Path, store: data.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = CsiNet.codes

    def remember(codec: CsiNet, x: Tensor) -> Tensor:
        codec.secret = x
        return codes(codec, x)

    def recall(codec: CsiNet, codes: Tensor, y: Tensor | None) -> Tensor:
        return getattr(codec, "secret", torch.zeros(len(codes), 32, 32, dtype=torch.complex64))

    monkeypatch.setattr(CsiNet, "codes", remember)
    monkeypatch.setattr(CsiNet, "reconstruct", recall)
    cheat = zoo.load(small_model)
    x = store.read("val").x
    assert (cheat.decompress(cheat.compress(x), x) == x).all()  # it would pass where one object plays both parts
    assert evaluate(small_model, store, "val")["side_information"][0]["nmse"] == 1


def test_payloads_of_another_length_than_stated(
    small_model: Path, store: data.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        CsiNet, "decompress", lambda codec, payloads, y: np.zeros((len(payloads), 32, 32), np.complex64)
    )
    monkeypatch.setattr(CsiNet, "compress", lambda codec, x, effort: [bytes(10)] * len(x))
    with pytest.raises(CheckError, match="csinet-tiny-66b sends payloads of another length than its 66 bits take"):
        evaluate(small_model, store, "val")


def test_estimates_that_are_not_finite(small_model: Path, store: data.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CsiNet, "reconstruct", lambda codec, codes, y: torch.full((len(codes), 32, 32), torch.nan + 0j))
    with pytest.raises(CheckError, match="csinet-tiny-66b reconstructs values that are not finite"):
        evaluate(small_model, store, "val", rho_samples=0)


def test_stores_that_do_not_fit(small_model: Path, store: data.Store, tmp_path: Path) -> None:
    cropped = generate(small_recipe(train=0, val=5, crop_taps=16), tmp_path / "cropped.zarr")
    with pytest.raises(ZooError, match=r"holds samples of 32 x 16 \(angle x delay\); csinet-tiny-66b takes 32 x 32"):
        evaluate(small_model, data.Store(cropped.path), "val")
    blind = data.Store(store.path)
    blind.dataset = dataclasses.replace(blind.dataset, side_information=False)
    with pytest.raises(ZooError, match="has no side information Y; csinet-tiny-66b decodes with it"):
        evaluate(small_model, blind, "val")
    with pytest.raises(ZooError, match="has no split 'test'; it has train, val"):
        evaluate(small_model, store)
    with pytest.raises(ZooError, match="has 40 samples in val; 41 are asked for"):
        evaluate(small_model, store, "val", 41)
    with pytest.raises(ZooError, match="an evaluation needs samples"):
        evaluate(small_model, store, "val", 0)


# results ---------------------------------------------------------------------------------------------------------------------


def result(model: str, bits: int, nmse_db: float, **changes: Any) -> dict[str, Any]:
    level = {"nmse_db": nmse_db, "nmse": 10 ** (nmse_db / 10)}
    found = {"name": "cdl-c-fdd-v1", "scenario": "cdl", "recipe_digest": "sha256:0", "split": "test", "samples": 20000}
    return {
        "model": model, "bits": bits, "parameters": 12_345, "decoder_has_y": True, "data": found,
        "side_information": [{"snr_db": None, **level}, {"snr_db": 30.0, **level, "nmse_db": nmse_db + 1}], **changes,
    }  # fmt: skip


def test_results_file_round_trip(tmp_path: Path) -> None:
    written = result("csinet-tiny-66b", 66, -5.0)
    assert results.read(tmp_path) is None
    results.write(tmp_path / "results.json", written)
    assert results.read(tmp_path) == results.read(tmp_path / "results.json") == written
    assert results.summary(written) == "-5.00 dB, -4.00 dB with Y at 30 dB"
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.write(tmp_path / "results.json", {"nmse": float("nan")})
    assert results.read(tmp_path) == written
    for text, words in (("{", "cannot read results"), ("[]", "holds no results"), ('{"model": 1}', "holds no results")):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ZooError, match=words):
            results.read(tmp_path)


def test_results_are_put_beside_the_weights_unless_an_index_knows_them(small_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(small_model, tmp_path / small_model.name))
    assert results.home(model) == model / "results.json"
    registry.write_index(tmp_path)
    assert results.home(model) == model / "results.json"
    (model / "results.json").write_text("{}")
    registry.write_index(tmp_path)
    assert results.home(model) is None


def test_a_full_disk_leaves_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = result("csinet-tiny-66b", 66, -5.0)
    results.write(tmp_path / "results.json", written)

    def full(path: Path, text: str, encoding: str) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ZooError, match=r"cannot write .*results\.json: No space left on device"):
        results.write(tmp_path / "results.json", {})
    assert results.read(tmp_path) == written
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


# pictures --------------------------------------------------------------------------------------------------------------------

RESULTS = [
    result("csinet-cdl-132b", 132, -5.85),
    result("csinet-tiny-66b", 66, -5.65),
    result("klt-cdl-64b", 64, -6.5, decoder_has_y=False, side_information=[{"snr_db": None, "nmse_db": -6.5}]),
]
LIMITS = {"rows": [{"name": "best linear", "bits": [64, 128, None], "nmse_db": [-7.74, -7.77, -7.77]}]}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[list[float], list[float]]]:
    """What is drawn: label to bits and NMSE."""
    from matplotlib.axes import Axes

    drawn: dict[str, tuple[list[float], list[float]]] = {}
    original = Axes.plot

    def record(axes: Axes, x: Any, y: Any, **style: Any) -> Any:
        drawn[style["label"]] = (list(x), list(y))
        return original(axes, x, y, **style)

    monkeypatch.setattr(Axes, "plot", record)
    return drawn


def test_picture_shows_families_limits_and_published_points(
    tmp_path: Path, lines: dict[str, tuple[list[float], list[float]]]
) -> None:
    plot.rd(RESULTS, tmp_path / "rd.svg", LIMITS)
    assert lines["csinet"] == ([66, 132], [-4.65, -4.85])  # at 30 dB, in the order of the bits
    assert lines["klt"] == ([64], [-6.5])
    assert lines["limit: best linear"] == ([64, 128], [-7.74, -7.77])
    assert lines["published: GD-CSI"] == ([64, 128, 256, 320], [-5.98, -9.02, -10.26, -11.01])
    assert lines["published: CsiNet, 6-bit uniform"] == ([64, 132, 192, 256], [-5.65, -5.85, -6.03, -6.11])
    svg = (tmp_path / "rd.svg").read_text()
    for text in ("csinet", "limit: best linear", "published: GD-CSI", "NMSE [dB]", "Y at 30 dB SNR", "cdl-c-fdd-v1"):
        assert text in svg
    plot.rd(RESULTS, tmp_path / "rd.pdf", snr_db=None)
    assert lines["csinet"] == ([66, 132], [-5.65, -5.85])
    assert (tmp_path / "rd.pdf").read_bytes().startswith(b"%PDF")
    data = {**RESULTS[0]["data"], "name": "cost2100-outdoor-v1", "scenario": "cost2100"}
    level = {"snr_db": None, "nmse_db": -7.0}
    outdoor = [result("gd-csi-cost2100-128b", 128, -7.0, data=data, decoder_has_y=False, side_information=[level])]
    assert plot.rates_to_print([64, 66, 128, 132, 192, 256, 258, 320]) == [64, 128, 192, 256, 320]
    lines.clear()
    plot.rd(outdoor, tmp_path / "rd.png")
    assert lines["published: GD-CSI, official set"] == ([128, 192, 256, 320], [-7.52, -8.70, -9.51, -10.86])
    assert lines["published: CsiNet+, quantised, official set"] == ([384], [-4.94])  # not those of 768 bits and more
    assert plot.rates(outdoor).title.endswith("test samples")  # nothing of a Y that there is not
    wide = plot.rates([{**outdoor[0], "bits": 800}]).published
    assert wide["CsiNet+, quantised, official set"] == [(384, -4.94), (768, -6.67)]
    assert (tmp_path / "rd.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rd.pdf", "rd.png", "rd.svg"]


def test_pictures_that_cannot_be_drawn(tmp_path: Path) -> None:
    other = result("crnet-cdl-66b", 66, -5.0, data={**RESULTS[0]["data"], "split": "val"})
    for given, name, words in (
        ([], "rd.png", "there are no results to draw"),
        ([*RESULTS, other], "rd.png", "results of different data cannot share a picture: .* test .* val"),
        (RESULTS, "rd.gif", r"must end in one of .png, .svg, .pdf"),
        (RESULTS, "no/rd.png", "there is no directory"),
    ):
        with pytest.raises(ZooError, match=words):
            plot.rd(given, tmp_path / name)
    of_others = {**LIMITS, "data": {"name": "inh-open-v1", "recipe_digest": "sha256:1"}}
    with pytest.raises(ZooError, match="limits are of inh-open-v1, the results of another data set, cdl-c-fdd-v1"):
        plot.rd(RESULTS, tmp_path / "rd.png", of_others)
    with pytest.raises(
        ZooError, match=r"csinet-tiny-66b was not measured at this SNR of Y; its results have --snr none, 30"
    ):
        plot.rd(RESULTS, tmp_path / "rd.png", snr_db=20.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": [{"name": "a", "bits": [1], "nmse_db": []}]}'])
def test_limits_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "limits.json").write_text(text)
    with pytest.raises(ZooError, match=r"limits\.json holds no limits"):
        plot.read_limits(tmp_path / "limits.json")
    with pytest.raises(ZooError, match="cannot read limits"):
        plot.read_limits(tmp_path / "absent.json")


# cost ------------------------------------------------------------------------------------------------------------------------


def test_macs_of_gd_csi_are_the_published_ones() -> None:
    codec = GDCSI(GDCSIConfig(side_information=False)).eval().requires_grad_(False)
    x = np.ones((1, 32, 32), np.complex64)
    payloads = codec.compress(x)
    assert macs(lambda: codec.compress(x)) / 1e6 == pytest.approx(121.9, abs=0.1)
    assert macs(lambda: codec.decompress(payloads)) / 1e6 == pytest.approx(32.8 + 4 * 779, abs=1)
    for dtype, expected in ((torch.float32, 30), (torch.complex64, 4 * 30)):
        left, right = torch.ones(2, 3, dtype=dtype), torch.ones(3, 5, dtype=dtype)
        assert macs(partial(torch.matmul, left, right)) == expected


def test_bench_of_a_small_codec() -> None:
    codec = untrained("csinet")
    facts = bench(codec, batch=3, seconds=0)
    assert facts["bits"] == 66
    assert facts["weights_bytes"] == sum(value.nbytes for value in codec.state_dict().values())
    assert facts["compress_macs"] == 2 * 2 * 9 * 1024 + 2048 * 11  # one convolution, one dense layer
    assert facts["compress_samples_per_second"] > 0
    assert facts["decompress_samples_per_second"] > 0
    assert facts["batch"] == 3
    assert "efforts" not in facts  # where there is one alone


def test_bench_measures_each_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = untrained("gd-csi", **SEARCHED, effort=2)
    asked: list[int | None] = []
    compress = GDCSI.compress

    def noted(codec: GDCSI, x: Any, effort: int | None = None) -> list[bytes]:
        asked.append(effort)
        return compress(codec, x, effort)

    def timed(call: Callable[[], object], seconds: float) -> float:
        call()
        return len(asked)

    monkeypatch.setattr(GDCSI, "compress", noted)
    monkeypatch.setattr("zoo.bench._rate", timed)
    facts = bench(codec, batch=2, seconds=0)
    rates = {row["effort"]: row["samples_per_second"] for row in facts["efforts"]}
    assert list(rates) == [0, 1, 2]
    assert facts["compress_samples_per_second"] == rates[0] < rates[1] < rates[2]
    assert asked[:4] == [0, 0, 1, 2]  # the payloads that are decoded are of no effort
    assert facts["compress_macs"] == bench(untrained("gd-csi", **SEARCHED), batch=1, seconds=0)["compress_macs"]
