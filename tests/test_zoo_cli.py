"""The zoo command as a new user meets it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from datagen import Store, generate
from tests.conftest import Cli, assert_one_line_error, small_recipe, start_cli
from tests.zoo_fixtures import samples, save, untrained
from zoo import data, payloads, plot, registry, results
from zoo.bench import bench
from zoo.locate import locate

TINY = ("--set", "training.steps=3", "--set", "training.batch=8", "--set", "training.validation_samples=8")
SMALL_JSCC = (*TINY, "--set", "codec.width=16", "--set", "codec.hidden=16")


@pytest.fixture
def model(small_model: Path, tmp_path: Path) -> Path:
    """A copy of the small model, in the directory that commands run in."""
    return Path(shutil.copytree(small_model, tmp_path / small_model.name))


@pytest.fixture
def arrays(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """x.npy and y.npy where commands run, and what they hold."""
    x, y = samples(10).numpy(), samples(10, 1).numpy()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    return x, y


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["eval", "--help"],
        ["plot", "rd", "--help"],
        ["publish", "--help"],
        ["list"],
        ["list", "--remote"],
    ],
    ids=" ".join,
)
def test_help_and_list_import_no_torch(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom zoo.cli import main\ntry:\n    main({arguments})\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'torch', 'zarr', 'numpy', 'matplotlib', 'datagen'} & set(sys.modules)\nassert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout


def test_from_training_to_a_picture(small_store: Store, zoo_cli: Cli, tmp_path: Path) -> None:
    store = small_store.path
    made = zoo_cli("train", "csinet", "--rate", "66", *TINY, "--data", store, "--json")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts == {"run": "runs/csinet-cdl-66b", "models": ["runs/csinet-cdl-66b/models/csinet-cdl-66b"]}
    model = facts["models"][0]

    measured = zoo_cli("eval", model, "--data", store, "--split", "val", "--snr", "none", "--snr", "20")
    assert measured.returncode == 0, measured.stderr
    number = r"-?\d+\.\d\d dB"
    assert re.fullmatch(
        rf"csinet-cdl-66b: 66 bits \(9 bytes\), NMSE {number}, {number} with Y at 20 dB; 40 val samples of cdl-c-fdd-v1\n", measured.stdout
    )  # fmt: skip
    kept = results.read(tmp_path / model)
    assert kept is not None
    assert [level["snr_db"] for level in kept["side_information"]] == [None, 20.0]
    again = zoo_cli("eval", model, "--data", store, "--split", "val", "--samples", "7", "--json", "--out", "seven.json")
    assert json.loads(again.stdout) == results.read(tmp_path / "seven.json")
    assert json.loads(again.stdout)["data"]["samples"] == 7
    assert results.read(tmp_path / model) == kept

    told = json.loads(zoo_cli("info", model, "--json").stdout)
    assert told["codec"]["rate"] == 66
    assert told["results"] == kept
    assert "csinet" in zoo_cli("info", model).stdout
    [checked] = json.loads(zoo_cli("check", model, "--json").stdout)
    assert checked["ok"]
    cost = zoo_cli("bench", model, "--batch", "2", "--json")
    assert json.loads(cost.stdout)["parameters"] == kept["parameters"]

    drawn = zoo_cli("plot", "rd", model, "--snr", "20", "--out", "rd.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "rd.png").read_bytes().startswith(b"\x89PNG")
    assert_one_line_error(
        zoo_cli("plot", "rd", model, "--out", "no.png"), 2, "not measured at this SNR of Y", "--snr none, 20"
    )
    assert zoo_cli("index", Path(model).parent).returncode == 0
    assert locate(tmp_path / model)[1] is not None


def test_train_takes_settings_and_simulates(zoo_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('model = "D"\nname = "mine"\n')
    made = zoo_cli(
        "train", "gd-csi-paper", *TINY, "--set", "codec.norm=channel", "--set", "codec.width=4", "--rate", "64", "--simulate",
        "--simulate-recipe", "mine.toml", "--quiet", "--out", "run",
    )  # fmt: skip
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    facts = json.loads(zoo_cli("info", "run/models/gd-csi-paper-cdl-64b", "--json").stdout)
    assert facts["codec"]["norm"] == "channel"
    assert facts["recipe"]["training"]["steps"] == 3
    assert facts["dataset"]["name"] == "mine-v1"


def test_a_model_that_sends_symbols(small_store: Store, zoo_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    made = zoo_cli("train", "rdjscc", *SMALL_JSCC, "--data", small_store.path, "--json")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts == {
        "run": "runs/rd-jscc-cdl-k32",
        "models": ["runs/rd-jscc-cdl-k32/models/rd-jscc-cdl-k32"],
    }
    model = facts["models"][0]
    assert zoo_cli("check", model).stdout.startswith("ok ")
    assert json.loads(zoo_cli("info", model, "--json").stdout)["codec"]["symbols"] == [8, 16, 32]
    levels, ways = ("--snr", "-10:10:10", "--snr", "5"), ("--k", "8,32", "--steps", "0,1,2")
    sweep = (*levels, *ways, "--bits", "none,4", "--cnr", "none,0", "--bler", "--downlink-snr", "15")
    measured = zoo_cli("eval", model, "--data", small_store.path, "--split", "val", *sweep)
    assert measured.returncode == 0, measured.stderr
    kept = results.read(Path(model))
    assert kept is not None
    assert len(kept["points"]) == 4 * 2 * 3 * 2 * 2
    assert {point["snr_db"] for point in kept["points"]} == {-10, 0, 10, 5}
    assert {point["cnr_db"] for point in kept["points"]} == {None, 0}
    assert {point["downlink_snr_db"] for point in kept["points"]} == {15}
    assert all(0 < point["bler"] <= 1 for point in kept["points"])
    assert [line.split()[-1] for line in measured.stdout.splitlines()[1:3]] == [
        "BLER",
        f"{kept['points'][0]['bler']:.2g}",
    ]
    assert len(measured.stdout.splitlines()) == 2 + len(kept["points"])
    assert re.match(r"rd-jscc-cdl-k32: NMSE .* over 96 points; 40 val samples of cdl-c-fdd-v1\n", measured.stdout)
    plain = zoo_cli("eval", model, "--data", small_store.path, "--split", "val", "--json", "--out", "plain.json")
    points = json.loads(plain.stdout)["points"]
    combinations = list(itertools.product((8, 16, 32), (-10, -5, 0, 5, 10), (0, 2, "auto")))
    assert [(point["k"], point["snr_db"], point["steps"]) for point in points] == combinations
    assert {(point["bits"], point["cnr_db"]) for point in points} == {(None, None)}
    same = [point for point in kept["points"] if (point["k"], point["snr_db"]) == (8, -10)]
    assert points[0].items() < same[0].items()  # noise does not depend on what else is measured
    assert same[0].keys() - points[0].keys() == {"bler", "downlink_snr_db"}
    for arguments, words in (
        (["--snr", "none"], "a link has an SNR"),
        (["--effort", "3"], "effort 3 is not one of this model's: 0, 1, 2"),
        (["--k", "9"], "9 symbols are not served"),
        (["--steps", "-1"], "steps -1 is out of range"),
        (["--steps", "some"], "nor 'auto'"),
        (["--downlink-snr", "5"], "--downlink-snr goes with --bler"),
        (["--bler", "--downlink-snr", "none"], "'none' is no SNR in dB"),
        (["--snr", "5:1:1"], "'5:1:1' is neither a number nor START:STOP:STEP"),
        (["--bits", "many"], "'many' is neither a number nor START:STOP:STEP, such as -10:10:5, nor 'none'"),
    ):
        refused = zoo_cli("eval", model, "--data", small_store.path, "--split", "val", *arguments)
        assert_one_line_error(refused, 2, words)
    assert_one_line_error(zoo_cli("plot", "rd", model, "--out", "rd.png"), 2, "sends symbols, not bits")
    refused = zoo_cli("compress", model, small_store.path, "x.payloads")
    assert_one_line_error(refused, 2, "sends symbols over a radio link")
    monkeypatch.setattr("zoo.bench.bench", partial(bench, seconds=0))
    told = zoo_cli("bench", model, "--batch", "2").stdout.splitlines()
    assert re.fullmatch(rf"{model}: 32 symbols, [\d ]+ parameters, \d+\.\d\d MB", told[0])
    assert [re.split(r"  +", line)[0] for line in told[1:]] == [
        "encode",
        "encode, effort 1",
        "encode, effort 2",
        "decode",
        "decode, 1 step",
        "decode, 2 steps",
        "decode, 20 steps",
    ]
    cost = json.loads(zoo_cli("bench", model, "--batch", "2", "--json").stdout)
    assert cost["parameters"] == kept["parameters"]
    assert [part["steps"] for part in cost["decoders"]] == [0, 1, 2, 20]


def test_limits_are_printed_and_kept(
    small_store: Store, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def from_store(store: data.Store, bits: list[int], **options: Any) -> dict[str, Any]:
        asked.append((store.path, options))
        return {"rows": [{"name": "linear", "bits": bits, "nmse_db": [-bit / 16 for bit in bits]}]}

    monkeypatch.setattr("zoo.limits.from_store", from_store)
    told = zoo_cli("limits", small_store.path, "--bits", "128", "--bits", "64", "--out", "limits.json", "--quiet")
    assert told.returncode == 0, told.stderr
    assert told.stdout == "NMSE in dB at bits      64     128\nlinear               -4.00   -8.00\n"
    assert plot.read_limits(tmp_path / "limits.json")["rows"][0]["nmse_db"] == [-4.0, -8.0]
    monkeypatch.setattr(data.Simulated, "statistics", lambda simulated: simulated.dataset.name)
    options = ("--components", "9", "--side-information-snr", "none", "--simulate", "--json")
    printed = zoo_cli("limits", small_store.path, *options)
    assert json.loads(printed.stdout)["rows"][0]["bits"] == [32, 64, 128, 192, 256, 320]
    nothing = dict.fromkeys(("statistics", "maps", "redrawn"))
    assert asked == [
        (small_store.path, {"components": 48, "snr_db": 30.0, "progress": False, **nothing}),
        (
            small_store.path,
            {"components": 9, "snr_db": None, "progress": True, **nothing, "statistics": "cdl-c-fdd-v1"},
        ),
    ]


# payloads --------------------------------------------------------------------------------------------------------------------


def test_compress_and_decompress_do_what_the_library_does(
    model: Path, arrays: tuple[np.ndarray, np.ndarray], zoo_cli: Cli, tmp_path: Path
) -> None:
    sent = zoo_cli("compress", model.name, "x.npy", "x.payloads", "--json")
    assert sent.returncode == 0, sent.stderr
    facts = {"model": model.name, "bits": 66, "payload_bytes": 9, "count": 10}
    assert json.loads(sent.stdout).items() >= facts.items()
    codec, (x, y) = zoo.load(model), arrays
    expected = codec.compress(x)
    raw = (tmp_path / "x.payloads").read_bytes()
    magic, header, body = raw.split(b"\n", 2)
    assert magic == b"CSIZOO1"
    assert json.loads(header) == {**facts, "weights_sha256": registry.sha256(model / "model.safetensors")}
    assert body == b"".join(expected)

    made = zoo_cli("decompress", model.name, "x.payloads", "z.npy", "--side-information", "y.npy", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["shape"] == [10, 32, 32]
    z = np.load(tmp_path / "z.npy")
    assert z.dtype == np.complex64
    assert (z == codec.decompress(expected, y)).all()


def test_compress_and_decompress_with_a_store(
    model: Path, small_store: Store, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.data.READ", 16)
    given = (small_store.path, "val.payloads", "--split", "val", "--samples", "30")
    assert "30 payloads of 66 bits (9 bytes)" in zoo_cli("compress", model, *given).stdout
    back = zoo_cli(
        "decompress", model, "val.payloads", "z.npy", "--side-information", small_store.path, "--split", "val"
    )
    assert "complex64 [30, 32 angles, 32 delays] by csinet-tiny-66b" in back.stdout
    batch, codec = data.Store(small_store.path).read("val", 0, 30), zoo.load(model)
    expected = codec.decompress(codec.compress(batch.x), batch.y)
    assert np.allclose(np.load(tmp_path / "z.npy"), expected.numpy(), atol=1e-6)


def test_the_payloads_name_their_model(
    model: Path, arrays: tuple[np.ndarray, np.ndarray], zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert zoo_cli("compress", model, "x.npy", "x.payloads", "--quiet").returncode == 0
    alone = ("decompress", "x.payloads", "z.npy", "--side-information", "y.npy")
    assert_one_line_error(zoo_cli(*alone), 2, "x.payloads is of csinet-tiny-66b, which does not come with this package")
    registry.write_index(tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    assert zoo_cli(*alone).returncode == 0
    header, sent = payloads.read(tmp_path / "x.payloads")
    elsewhere = header.model_copy(update={"model": "hf:someone/else"})  # a file does not choose what is downloaded
    payloads.write(tmp_path / "x.payloads", elsewhere, sent)
    assert_one_line_error(zoo_cli(*alone), 2, "hf:someone/else, which does not come with this package")


def test_the_phone_may_make_an_effort(zoo_cli: Cli, small_store: Store, tmp_path: Path) -> None:
    given: dict[str, Any] = {"target": "x", "side_information": False}
    save(tmp_path / "gd-csi-cdl-64b", untrained("gd-csi", **given))
    np.save(tmp_path / "x.npy", samples(10).numpy())
    name, codec, sent = "./gd-csi-cdl-64b", zoo.load(tmp_path / "gd-csi-cdl-64b"), {}
    for options, effort in (((), 0), (("--effort", "0"), 0), (("--effort", "2"), 2)):
        assert zoo_cli("compress", name, "x.npy", "p", *options).returncode == 0
        header, sent[effort] = payloads.read(tmp_path / "p")
        assert header.model_dump().keys() == {"model", "weights_sha256", "bits", "payload_bytes", "count"}
        assert sent[effort] == codec.compress(samples(10), effort)
    assert sent[0] != sent[2]
    assert zoo_cli("decompress", name, "p", "z.npy").returncode == 0  # what was searched is decoded as any other
    assert (np.load(tmp_path / "z.npy") == codec.decompress(sent[2])).all()
    of_val = ("--data", small_store.path, "--split", "val", "--samples", "5")
    told = zoo_cli("eval", name, *of_val, "--effort", "1")
    assert told.stdout.endswith(" dB at effort 1; 5 val samples of cdl-c-fdd-v1\n")
    assert results.effort(results.read(tmp_path / "gd-csi-cdl-64b") or {}) == 1
    assert json.loads(zoo_cli("info", name, "--json").stdout)["efforts"] == [0, 1, 2]
    assert "efforts           [0, 1, 2]" in zoo_cli("info", name).stdout
    (tmp_path / "p").unlink()
    words = "effort 3 is not one of this model's: 0, 1, 2"
    assert_one_line_error(zoo_cli("compress", name, "absent.npy", "p", "--effort", "3"), 2, words)
    assert_one_line_error(zoo_cli("eval", name, *of_val, "--effort", "3"), 2, words)
    assert not (tmp_path / "p").exists()


def test_what_an_effort_costs(zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.bench.bench", partial(bench, seconds=0))
    save(tmp_path / "gd-csi-cdl-64b", untrained("gd-csi", target="x", side_information=False))
    lines = zoo_cli("bench", "./gd-csi-cdl-64b", "--batch", "2").stdout.splitlines()
    parts = ["compress", "compress, effort 1", "compress, effort 2", "decompress"]
    assert [re.split(r"  +", line)[0] for line in lines[1:]] == parts
    assert len({line.index(" samples/s") for line in lines[1:]}) == 1
    cost = json.loads(zoo_cli("bench", "./gd-csi-cdl-64b", "--batch", "2", "--json").stdout)
    assert [row.keys() for row in cost["efforts"]] == [{"effort", "samples_per_second"}] * 3


def test_a_codec_without_side_information(zoo_cli: Cli, arrays: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    save(tmp_path / "csinet-tiny-66b", untrained("csinet", side_information=False))
    assert zoo_cli("compress", "./csinet-tiny-66b", "x.npy", "p").returncode == 0
    assert zoo_cli("decompress", "./csinet-tiny-66b", "p", "z.npy").returncode == 0
    assert np.load(tmp_path / "z.npy").shape == (10, 32, 32)
    superfluous = zoo_cli("decompress", "./csinet-tiny-66b", "p", "z.npy", "--side-information", "y.npy")
    assert_one_line_error(superfluous, 2, "takes no side information")


def test_payload_files_that_are_damaged_or_foreign(
    model: Path, arrays: tuple[np.ndarray, np.ndarray], zoo_cli: Cli, tmp_path: Path
) -> None:
    assert zoo_cli("compress", model, "x.npy", "p").returncode == 0
    raw = (tmp_path / "p").read_bytes()
    shutil.copytree(model, tmp_path / "csinet-other-66b")
    save(tmp_path / "again" / model.name, untrained("csinet", element_bits=11))
    before = sorted(os.listdir(tmp_path))

    def refused(content: bytes, *words: str, by: str = model.name) -> None:
        (tmp_path / "p").write_bytes(content)
        result = zoo_cli("decompress", by, "p", "z.npy", "--side-information", "y.npy")
        assert_one_line_error(result, 2, *words)
        assert sorted(os.listdir(tmp_path)) == before

    refused(raw[:-1], "p is cut short: 9 of its 10 payloads are whole")
    refused(raw + b"\0", "p is too long: 1 bytes follow its 10 payloads")
    refused(b"", "p is no payload file: it does not begin with CSIZOO1")
    refused(b"\x89PNG\r\n", "p is no payload file")
    refused(raw[:20], "p has a damaged header")
    refused(raw.replace(b'"bits":66', b'"bits":99'), "damaged header: 99 bits do not make 9 bytes")
    refused(raw.replace(b'"count":10', b'"count":-1'), "damaged header: count")
    refused(raw.replace(b'"count":10', b'"counts":10'), "damaged header: count: Field required")
    refused(
        raw.replace(b'"model":"csinet', b'"model":"crnet'),
        "holds payloads of crnet-tiny-66b",
        "csinet-tiny-66b",
        "cannot read them",
    )
    refused(raw, "holds payloads of csinet-tiny-66b", "cannot read them", by="again/csinet-tiny-66b")
    refused(raw[:-1] + b"\xff", "a payload has bits set beyond its 66")


# bad input -------------------------------------------------------------------------------------------------------------------

BAD = [
    (("train", "csinet"), "give one of --data STORE and --simulate"),
    (("train", "csinet", "--simulate", "--data", "s.zarr"), "give one of --data STORE and --simulate"),
    (("train", "csinet", "--data", "s.zarr", "--simulate-recipe", "r"), "--simulate-recipe goes with --simulate"),
    (("train", "csinet", "--data", "absent.zarr"), "absent.zarr is not a CSI store"),
    (("train", "csinett", "--simulate"), "unknown recipe 'csinett'; nearest: csinet"),
    (("train", "mine.toml", "--lite", "--simulate"), "--lite goes with a recipe's name"),
    (("train", "csinet", "--rate", "64", "--simulate"), "rate 64 is no multiple of element_bits 6"),
    (
        ("train", "csinet", "--set", "training.step=3", "--simulate"),
        "unknown key 'training.step'; did you mean 'steps'?",
    ),
    (("train", "csinet", "--set", "training.steps=many", "--simulate"), "training.steps = 'many'"),
    (("train", "csinet", "--set", "steps", "--simulate"), "'steps' is not KEY=VALUE"),
    (("train", "csinet", "--max-minutes", "0", "--simulate"), "--max-minutes"),
    (("train", "csinet", "--device", "abacus", "--simulate"), "device 'abacus' cannot be used"),
    (("train", "csinet", "--device", "cuda:99", "--data", "STORE"), "device 'cuda:99' cannot be used"),
    (("train", "csinet", "--simulate", "--simulate-recipe", "absent.toml"), "absent.toml"),
    (("eval", "MODEL", "--data", "x.npy"), "x.npy is not a CSI store"),
    (("eval", "MODEL", "--data", "STORE"), "has no split 'test'"),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--samples", "41"), "41 are asked for"),
    (
        ("eval", "MODEL", "--data", "STORE", "--split", "val", "--snr", "loud"),
        "'loud' is neither a number nor START:STOP:STEP",
    ),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--snr", "nan"), "'nan' is neither a number"),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--k", "8"), "--k is for models that send symbols"),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--cnr", "0"), "--cnr is for models that send symbols"),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--bler"), "--bler is for models that send symbols"),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--device", "abacus"), "device 'abacus' cannot be used"),
    (("eval", "MODEL", "--data", "STORE", "--out", "no/such/r.json"), "there is no directory no/such"),
    (("eval", "no-such-model-66b", "--data", "STORE"), "unknown model 'no-such-model-66b'"),
    (("info", "no/such"), "no/such is no model directory"),
    (("check", "no/such"), "no/such is no model directory"),
    (("index", "no/such"), "there is no directory no/such"),
    (("compress", "MODEL", "absent.npy", "p"), "cannot read X from absent.npy"),
    (("compress", "MODEL", "real.npy", "p"), "real.npy holds float32 [10, 32, 32]; X must be complex"),
    (
        ("compress", "MODEL", "narrow.npy", "p"),
        "x is complex64 [10, 32, 16]; this codec takes complex [n, 32 angles, 32 delays]",
    ),
    (("compress", "MODEL", "nan.npy", "p"), "x holds values that are not finite"),
    (("compress", "MODEL", "x.npy", "p", "--effort", "1"), "effort 1 is not one of this model's: 0"),
    (("compress", "MODEL", "x.npy", "p", "--effort", "-1"), "-1 is not in the range x>=0"),
    (("eval", "MODEL", "--data", "STORE", "--split", "val", "--effort", "1"), "effort 1 is not one of this model's: 0"),
    (("compress", "MODEL", "x.npy", "p", "--samples", "11"), "x.npy holds 10 samples; 11 are asked for"),
    (("compress", "MODEL", "x.npy", "no/such/p"), "there is no directory no/such"),
    (("compress", "MODEL", "x.npy", "."), "it is no plain file"),
    (("compress", "MODEL", "x.npy", "/dev/null"), "it is no plain file"),
    (("decompress", "p"), "zoo decompress takes [MODEL] PAYLOADS OUT.npy"),
    (("decompress", "MODEL", "absent", "z.npy"), "cannot read payloads from absent"),
    (("decompress", "MODEL", "good", "z.npy"), "decodes with side information: give --side-information"),
    (
        ("decompress", "MODEL", "good", "z.npy", "--side-information", "few.npy"),
        "few.npy holds 9 samples for 10 payloads",
    ),
    (
        ("decompress", "MODEL", "few", "z.npy", "--side-information", "y.npy"),
        "9 payloads but 10 samples of side information",
    ),
    (("decompress", "MODEL", "good", "z.npy", "--side-information", "real.npy"), "Y must be complex"),
    (("limits", "absent.zarr"), "absent.zarr is not a CSI store"),
    (("limits", "STORE", "--out", "no/such/l.json"), "there is no directory no/such"),
    (("release", "MODEL", "--data", "STORE", "--into", "x.npy"), "cannot write x.npy"),
    (("plot", "rd", "MODEL", "--out", "p.png"), "has no results; zoo eval makes them"),
    (("plot", "rd", "x.npy", "--out", "p.png"), "cannot read results from x.npy"),
    (("plot", "snr", "x.npy", "--out", "p.png"), "cannot read results from x.npy"),
    (("plot", "rd", "--scenario", "cdl", "--out", "p.png", "--limits", "x.npy"), "x.npy"),
    (("destroy",), "No such command 'destroy'"),
    (("eval", "MODEL"), "Missing option '--data'"),
]


@pytest.mark.parametrize(
    ("arguments", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_leaves_nothing(
    model: Path, small_store: Store, arrays: tuple[np.ndarray, np.ndarray], zoo_cli: Cli, tmp_path: Path,
    arguments: tuple[str, ...], words: str,
) -> None:  # fmt: skip
    x, y = arrays
    for name, array in (("real", x.real), ("narrow", x[:, :, :16]), ("nan", x * np.nan), ("few", y[:9])):
        np.save(tmp_path / f"{name}.npy", array)
    codec, digest = zoo.load(model), registry.sha256(model / "model.safetensors")
    for name, sent in (("good", codec.compress(x)), ("few", codec.compress(x[:9]))):
        header = payloads.Header(model=model.name, weights_sha256=digest, bits=66, payload_bytes=9, count=len(sent))
        payloads.write(tmp_path / name, header, sent)
    before = sorted(map(str, tmp_path.rglob("*")))
    given = [{"MODEL": str(model), "STORE": str(small_store.path)}.get(argument, argument) for argument in arguments]
    assert_one_line_error(zoo_cli(*given), 2, words)
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_check_tells_good_models_from_bad_ones(
    model: Path, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "csinet-tiny-72b", untrained("csinet", rate=72))
    registry.write_index(tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    good = zoo_cli("check")
    assert good.returncode == 0, good.stderr
    assert [line.split(":")[0] for line in good.stdout.splitlines()] == ["ok   csinet-tiny-66b", "ok   csinet-tiny-72b"]
    with (model / "model.safetensors").open("ab") as file:
        file.write(b" ")
    bad = zoo_cli("check")
    assert_one_line_error(bad, 1, "1 of 2 models are not what their records say")
    assert re.search(r"^bad  csinet-tiny-66b: .*model.safetensors was changed", bad.stdout, re.MULTILINE)
    assert "ok   csinet-tiny-72b" in bad.stdout
    rows = json.loads(zoo_cli("check", "--json").stdout)
    assert [(row["model"], row["ok"]) for row in rows] == [("csinet-tiny-66b", False), ("csinet-tiny-72b", True)]


def test_models_that_are_released_are_left_alone(
    model: Path, small_store: Store, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--data", small_store.path, "--split", "val", "--samples", "3")
    assert zoo_cli("eval", model, *given).returncode == 0
    registry.write_index(tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    before = (model / "results.json").read_bytes()
    for name in (model.name, str(model)):
        again = zoo_cli("eval", name, *given, "--snr", "3")
        assert again.returncode == 0
        assert "--out FILE keeps these results" in again.stderr
        assert (model / "results.json").read_bytes() == before
    listed = zoo_cli("list", "csinet-*").stdout.splitlines()
    assert listed[0].split() == ["model", "rate", "parameters", "NMSE"]
    assert re.fullmatch(r"csinet-tiny-66b +66 bits +50 753 +-?\d+\.\d\d dB, -?\d+\.\d\d dB with Y at 30 dB", listed[1])
    [row] = json.loads(zoo_cli("list", "--json").stdout)
    assert row["side_information"] == json.loads(before)["side_information"]


def test_release_of_a_model_that_sends_symbols(zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = generate(small_recipe(train=20, val=8, test=8), tmp_path / "test.zarr").path
    made = zoo_cli("train", "adjscc-dense", *SMALL_JSCC, "--data", store, "--quiet")
    assert made.returncode == 0, made.stderr
    name = "adjscc-dense-cdl-k32"
    told = zoo_cli("release", f"runs/{name}/models/{name}", "--data", store, "--into", "shipped")
    assert told.returncode == 0, told.stderr
    assert re.fullmatch(rf"shipped/{name}: NMSE -?\d+\.\d\d to -?\d+\.\d\d dB over 15 points\n", told.stdout)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path / "shipped")
    assert re.search(rf"{name} +32 symbols +\d[\d ]+ +-?\d", zoo_cli("list").stdout)
    assert zoo_cli("check").returncode == 0
    assert_one_line_error(zoo_cli("plot", "rd", "--out", "rd.png"), 2)


def test_release_ships_measured_models(
    model: Path, zoo_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = generate(small_recipe(train=0, val=0, test=20), tmp_path / "test.zarr").path
    told = zoo_cli("release", model, "--data", store, "--into", "shipped")
    assert told.returncode == 0, told.stderr
    assert re.match(rf"shipped/{model.name}: 66 bits \(9 bytes\), NMSE -?\d", told.stdout)
    again = json.loads(zoo_cli("release", model, "--data", store, "--into", "shipped", "--json").stdout)
    shipped = tmp_path / "shipped" / model.name
    assert again == [results.read(shipped)]
    assert again[0]["weights_sha256"] == registry.sha256(shipped / "model.safetensors")
    assert again[0]["data"]["samples"] == 20
    assert (shipped / "model.safetensors").stat().st_size < 0.6 * (model / "model.safetensors").stat().st_size
    assert sorted(os.listdir(tmp_path / "shipped")) == [model.name, "index.json"]
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path / "shipped")
    assert zoo_cli("check", model.name).returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_from_outside(model: Path, tmp_path: Path, number: signal.Signals) -> None:
    os.mkfifo(tmp_path / "x.npy")  # opening it for writing waits until the command reads
    before = sorted(os.listdir(tmp_path))
    process = start_cli("compress", model, "x.npy", "p", cwd=tmp_path, program="zoo")
    with (tmp_path / "x.npy").open("wb"):
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert_one_line_error(subprocess.CompletedProcess(process.args, process.returncode, out, err), 130, "zoo: stopped")
    assert out == ""
    assert sorted(os.listdir(tmp_path)) == before


def test_output_into_a_closed_pipe(model: Path) -> None:
    script = Path(sys.executable).with_name("zoo")
    result = subprocess.run(f"{script} info {model} | head -n 1", shell=True, capture_output=True, text=True)
    assert result.stdout == f"path              {model}\n"
    assert result.stderr == ""


def test_version_is_the_package_s(zoo_cli: Cli) -> None:
    import datagen

    assert zoo_cli("--version").stdout == f"zoo, version {datagen.__version__}\n"
