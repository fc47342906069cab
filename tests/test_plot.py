"""Pictures of models that send symbols: which curves there are, under which names."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, assert_one_line_error
from zoo import plot
from zoo.errors import ZooError

DATA = {"name": "cost2100-outdoor-v1", "scenario": "cost2100", "recipe_digest": "0", "split": "test", "samples": 2000}


def nmse_db(k: int, snr_db: float, steps: int, bits: int | None, cnr_db: float | None) -> float:
    """A number that tells where it was measured."""
    return -(snr_db + 20) * k / 100 - steps + (bits is not None) + (cnr_db is not None) / 2


def measured(
    model: str, k: tuple[int, ...] = (16,), steps: tuple[int, ...] = (0,), bits: tuple[int | None, ...] = (None,),
    cnr: tuple[float | None, ...] = (None,), **other: Any,
) -> dict[str, Any]:  # fmt: skip
    """What zoo eval writes."""
    columns = ("k", "snr_db", "steps", "bits", "cnr_db")
    points = [
        {**dict(zip(columns, values, strict=True)), "nmse_db": nmse_db(*values)}
        for values in itertools.product(k, (-5.0, 5.0, 0.0), steps, bits, cnr)
    ]
    return {
        "model": model, "data": DATA, "parameters": 1, "symbols": list(k), "channel": "rayleigh", "points": points, **other
    }  # fmt: skip


def bound(k: int, channel: str = "rayleigh") -> dict[str, Any]:
    """What zoo limits --link writes."""
    row = {"name": "Gaussian bound, ergodic", "snr_db": [-5, 0, 5], "bits": [1, 2, 3], "nmse_db": [-k, -k - 1, -k - 2]}
    return {"link": {"k": k, "channel": channel}, "rows": [row]}


RD = measured("rd-jscc-cost2100-k32", k=(8, 16), steps=(0, 2), bits=(None, 4), cnr=(None, 0.0))
UNET = measured("unet-jscc-cost2100-k16")


def test_a_curve_is_named_by_what_differs() -> None:
    alone = plot.curves([RD], chosen={"k": [16], "bits": [None], "cnr_db": [None]})
    assert alone.measured == {
        f"{steps} steps": [(snr, nmse_db(16, snr, steps, None, None)) for snr in (-5, 0, 5)] for steps in (0, 2)
    }  # in the order of the SNR
    assert alone.title.endswith(" test samples\nrd-jscc, k = 16, rayleigh")
    assert list(plot.curves([RD], chosen={"k": [16], "steps": [0]}).measured) == [
        "analog, perfect CSI", "analog, CNR 0 dB", "4 bits, perfect CSI", "4 bits, CNR 0 dB"
    ]  # fmt: skip
    assert len(plot.curves([RD]).measured) == 2 * 2 * 2 * 2
    both = plot.curves([RD, UNET], chosen={"k": [16], "steps": [0], "bits": [None], "cnr_db": [None]})
    assert list(both.measured) == ["rd-jscc", "unet-jscc"]
    assert list(plot.curves([UNET]).measured) == ["unet-jscc"]
    rates = plot.curves([UNET, measured("unet-jscc-cost2100-k8", k=(8,))])
    assert list(rates.measured) == ["k = 16", "k = 8"]
    clash = plot.curves([UNET, measured("unet-jscc-cost2100-k32", k=(16, 32))], chosen={"k": [16]})
    assert list(clash.measured) == ["unet-jscc-cost2100-k16", "unet-jscc-cost2100-k32"]
    links = plot.curves([UNET, {**UNET, "channel": "awgn"}], chosen={"snr_db": [5]})
    assert links.measured == {link: [(5, nmse_db(16, 5, 0, None, None))] for link in ("rayleigh", "awgn")}


def test_error_over_symbols() -> None:
    chosen = {"snr_db": [5], "steps": [2], "bits": [4], "cnr_db": [0]}
    found = plot.curves([RD], [bound(32), bound(8), bound(16)], "k", chosen, with_published=True)
    assert found.measured == {"rd-jscc": [(k, nmse_db(k, 5, 2, 4, 0)) for k in (8, 16)]}
    assert found.limits == {"Gaussian bound, ergodic": [(8, -10), (16, -18), (32, -34)]}
    assert found.published == {"RD-JSCC, official set": [(16, -12.2)], "U-Net JSCC, official set": [(16, -9.2)]}
    assert found.title.endswith("samples\nSNR 5 dB, 2 steps, 4 bits, CNR 0 dB, rayleigh")


def test_limits_and_published_points_stand_beside() -> None:
    found = plot.curves([UNET], [bound(16), bound(8)], with_published=True)
    assert found.limits == {"Gaussian bound, ergodic": [(-5, -16), (0, -17), (5, -18)]}  # that of the same k only
    assert found.published == {"RD-JSCC, official set": [(5, -12.2)], "U-Net JSCC, official set": [(5, -9.2)]}
    assert plot.curves([UNET]).published == plot.curves([UNET]).limits == {}
    several = plot.curves([RD], [bound(8), bound(16, "awgn")], chosen={"steps": [0], "bits": [4], "cnr_db": [0]})
    assert list(several.measured) == ["k = 8, rayleigh", "k = 16, rayleigh"]
    assert list(several.limits) == ["Gaussian bound, ergodic, k = 8, rayleigh", "Gaussian bound, ergodic, k = 16, awgn"]
    of_others = {**bound(16), "data": {"name": "inh-open-v1", "recipe_digest": "1"}}
    with pytest.raises(
        ZooError, match="limits are of inh-open-v1, the results of another data set, cost2100-outdoor-v1"
    ):
        plot.curves([UNET], [bound(16), of_others])


def test_published_points_are_of_one_data_set() -> None:
    outdoor = [row["name"] for row in plot.published("cost2100-outdoor-v1", "bits")]
    assert outdoor[0] == "GD-CSI, official set"
    assert all(name.endswith(", official set") for name in outdoor)  # what is drawn beside them is of a generated one
    assert plot.published("csinet-outdoor-v1", "bits") == plot.published("cost2100-outdoor-mini-v1", "bits")
    assert [row["name"] for row in plot.published("cdl-c-fdd-v1", "bits")] == ["GD-CSI", "CsiNet, 6-bit uniform"]
    for other in ("cost2100-indoor-v1", "inh-open-v1", "cdl-c-fddx-v1"):
        assert plot.published(other, "bits") == plot.published(other, "snr_db") == []


def test_block_error_rates() -> None:
    with_bler = {**UNET, "points": [{**point, "bler": 10 ** point["nmse_db"]} for point in UNET["points"]]}
    found = plot.curves([with_bler], measure="bler")
    assert found.measure == "bler"
    assert found.measured == {"unet-jscc": [(snr, 10 ** nmse_db(16, snr, 0, None, None)) for snr in (-5, 0, 5)]}
    for results, options, words in (
        ([with_bler, RD], {}, "no block error rates; zoo eval --bler"),
        ([with_bler], {"limits": [bound(16)]}, "are of the NMSE"),
        ([with_bler], {"with_published": True}, "are of the NMSE"),
    ):
        with pytest.raises(ZooError, match=words):
            plot.curves(results, measure="bler", **options)


def test_curves_that_are_none() -> None:
    cases: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
        ([], {}, "there are no results to draw"),
        ([UNET, {**RD, "data": {**DATA, "split": "val"}}], {}, "results of different data cannot share a picture"),
        ([UNET, UNET], {}, "hold a model twice"),
        ([UNET], {"chosen": {"k": [8, 16]}}, "nothing was measured at --k 8; the results have --k 16"),
        ([UNET], {"chosen": {"bits": [4]}}, "nothing was measured at --bits 4; the results have --bits none"),
        ([UNET, measured("a-b-k8", (8,), (2,))], {"chosen": {"k": [8], "steps": [0]}}, "at --k 8 --steps 0 together"),
        ([UNET], {"limits": [bound(8)]}, "the limits hold nothing at --k 16"),
        ([UNET], {"chosen": {"snr_db": [0]}, "with_published": True}, "no points are published .* at --snr 0 --k 16"),
    ]
    for results, options, words in cases:
        with pytest.raises(ZooError, match=words):
            plot.curves(results, **options)


@pytest.mark.parametrize(("name", "magic"), [("p.png", b"\x89PNG"), ("p.pdf", b"%PDF")])
def test_command(zoo_cli: Cli, tmp_path: Path, name: str, magic: bytes) -> None:
    for file, content in (("rd", RD), ("unet", UNET), ("l16", bound(16)), ("l8", bound(8))):
        (tmp_path / f"{file}.json").write_text(json.dumps(content))
    chosen = ("--k", "16", "--steps", "0,2", "--bits", "none", "--cnr", "none", "--snr", "-5:5:5")
    beside = ("--limits", "l16.json", "--limits", "l8.json", "--published")
    drawn = zoo_cli("plot", "snr", "rd.json", "unet.json", *chosen, *beside, "--out", name)
    assert (drawn.returncode, drawn.stdout, drawn.stderr) == (0, "", f"wrote {name}\n")
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert zoo_cli("plot", "snr", "rd.json", "--over", "k", "--snr", "5", "--out", name).returncode == 0


def test_command_refuses(zoo_cli: Cli, tmp_path: Path) -> None:
    codec = {"model": "klt-cdl-64b", "data": DATA, "parameters": 1, "bits": 64, "decoder_has_y": False}
    rates = {"rows": [{"name": "linear", "bits": [64], "nmse_db": [-4.0]}]}
    contents = {"unet": UNET, "codec": {**codec, "side_information": []}, "rates": rates, "bad": {}}
    for file, content in contents.items():
        (tmp_path / f"{file}.json").write_text(json.dumps(content))
    for arguments, words in (
        (("bad.json", "--out", "p.png"), "bad.json holds no results"),
        (("codec.json", "--out", "p.png"), "codec.json sends bits, not symbols"),
        (("unet.json", "--out", "p.gif"), "must end in one of"),
        (("unet.json", "--out", "no/p.png"), "there is no directory no"),
        (("unet.json", "--bler", "--out", "p.png"), "no block error rates"),
        (("unet.json", "--steps", "3", "--out", "p.png"), "nothing was measured at --steps 3"),
        (("unet.json", "--limits", "rates.json", "--out", "p.png"), "rates.json holds no limits over SNR"),
        (("unet.json", "--limits", "no.json", "--out", "p.png"), "cannot read limits from no.json"),
        (("unet.json", "--snr", "none", "--out", "p.png"), "'none' is neither a number"),
    ):
        assert_one_line_error(zoo_cli("plot", "snr", *arguments), 2, words)
    assert sorted(file.stem for file in tmp_path.glob("*.*")) == sorted(contents)
