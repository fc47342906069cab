"""The command line as a new user meets it: the real console script, in a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import datagen
from datagen import CDLRecipe, Store
from tests.conftest import Cli, assert_one_line_error, small_recipe

SMALL = ("--train", "300", "--val", "20", "--test", "0", "--workers", "0")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom datagen.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'torch', 'sionna', 'zarr', 'numpy', 'pydantic', 'distributed', 'matplotlib', 'tensorflow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Simulate CDL triples" in result.stdout


def test_command_help_imports_neither_torch_nor_sionna() -> None:
    code = (
        "import sys\nfrom datagen.cli import main\n"
        "try:\n    main(['cdl', '--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "assert not {'torch', 'sionna', 'zarr', 'distributed'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for option in (
        "--delay-spread",
        "--speed",
        "--downlink-carrier",
        "--uplink-carrier",
        "--antennas",
        "--subcarriers",
        "--spacing",
        "--crop",
    ):
        assert option in result.stdout


def test_make_inspect_verify(cli: Cli, tmp_path: Path) -> None:
    made = cli("cdl", *SMALL, "--slots", "71", "--out", "s.zarr", "--json")
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts["existed"] is False
    assert json.loads(cli("cdl", *SMALL, "--slots", "71", "--out", "s.zarr", "--json").stdout)["existed"] is True
    assert facts["samples"] == {"train": 300, "val": 20}
    assert facts["recipe_digest"] == CDLRecipe(train=300, val=20, test=0).digest

    seen = cli("inspect", "s.zarr", "--json", "--plot", "p.png")
    assert seen.returncode == 0, seen.stderr
    summary = json.loads(seen.stdout)
    assert summary["digest"] == facts["digest"]
    assert summary["measured"]["X"]["correlation"] > 0.9 > 0.5 > summary["measured"]["Y"]["correlation"]
    assert summary["measured"]["X"]["nmse_db"] == pytest.approx(-5.3, abs=0.7)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    table = cli("inspect", "s.zarr")
    assert "complex64 [sample, 32 angles, 32 delays]" in table.stdout
    assert "cdl-c-fdd-v1" in table.stdout

    verified = cli("verify", "s.zarr")
    assert verified.returncode == 0
    assert "all 2 shards hold the samples of cdl-c-fdd-v1, bit for bit" in verified.stdout
    assert "samples/s" in verified.stderr


def test_manifest_regenerate_and_bad_shards(cli: Cli, tmp_path: Path) -> None:
    assert cli("cdl", *SMALL, "--out", "s.zarr", "--quiet").returncode == 0
    assert cli("manifest", "s.zarr", "--out", "m.json").returncode == 0
    assert json.loads(cli("manifest", "m.json").stdout) == json.loads((tmp_path / "m.json").read_text())
    assert (
        json.loads(cli("manifest", "m.json", "--croissant").stdout)["conformsTo"]
        == "http://mlcommons.org/croissant/1.0"
    )

    again = cli("regenerate", "m.json", "--out", "r.zarr", "--workers", "1")
    assert again.returncode == 0, again.stderr
    assert "the same samples as cdl-c-fdd-v1: 2 of 2 shards bit for bit, relative error 0.0e+00 at most" in again.stdout
    assert json.loads(cli("regenerate", "m.json", "--out", "r.zarr", "--workers", "0", "--json").stdout)["same"] is True
    assert cli("verify", "r.zarr", "--manifest", "m.json").returncode == 0

    (tmp_path / "r.zarr/val/X/c/0/0/0").unlink()
    bad = cli("verify", "r.zarr", "--manifest", "m.json")
    assert bad.returncode == 1
    assert bad.stdout == "bad: val shard 0 (samples 0 to 19): val/X/c/0/0/0 is missing\n"
    assert json.loads(cli("verify", "r.zarr", "--json").stdout)["ok"] is False

    manifest = (tmp_path / "m.json").read_text()
    (tmp_path / "m.json").write_text(manifest.replace('"seed": 0', '"seed": 1'))
    assert_one_line_error(cli("verify", "s.zarr", "--manifest", "m.json"), 1, "m.json was edited")
    assert_one_line_error(cli("regenerate", "m.json", "--out", "x.zarr"), 1, "m.json was edited")
    assert not (tmp_path / "x.zarr").exists()


def test_recipe_file_and_options_that_override_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text('model = "D"\nspeed_mps = [0.0, 10.0]\ntrain = 5\nval = 0\ntest = 3\n')
    options = (
        "--delay-spread",
        "100",
        "--speed",
        "3:4",
        "--velocity",
        "horizontal",
        "--antennas",
        "8",
        "--spacing",
        "30",
    )
    result = cli(
        "cdl",
        "--recipe",
        "r.toml",
        *options,
        "--uplink",
        "same-coefficients",
        "--out",
        "s.zarr",
        "--workers",
        "0",
        "--seed",
        "9",
    )
    assert result.returncode == 0, result.stderr
    assert datagen.open_store(tmp_path / "s.zarr").recipe == CDLRecipe(
        model="D", speed_mps=(3.0, 4.0), train=5, val=0, test=3, delay_spread_ns=100.0, velocity="horizontal", antennas=8,
        spacing_khz=30.0, uplink="same-coefficients", seed=9,
    )  # fmt: skip
    assert_one_line_error(
        cli("cdl", "--out", "s.zarr", "--workers", "0"), 2, "holds another recipe", "--force to replace it"
    )


def test_same_command_again_and_force(cli: Cli, tmp_path: Path) -> None:
    assert cli("cdl", *SMALL, "--out", "s.zarr").returncode == 0
    digest = datagen.open_store(tmp_path / "s.zarr").manifest.digest
    again = cli("cdl", *SMALL, "--out", "s.zarr")
    assert again.returncode == 0
    assert "already there, nothing done" in again.stdout
    assert datagen.open_store(tmp_path / "s.zarr").manifest.digest == digest
    assert cli("cdl", *SMALL, "--model", "E", "--out", "s.zarr", "--force").returncode == 0
    assert datagen.open_store(tmp_path / "s.zarr").recipe.name == "cdl-e-fdd"


def test_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("cdl", "--dry-run", "--out", "s.zarr", "--workers", "2", "--json")
    assert result.returncode == 0, result.stderr
    facts = json.loads(result.stdout)
    assert facts["shards"] == 33
    assert facts["store_bytes"] == (391 + 40 + 79) * 256 * 3 * 8192
    assert facts["worker_bytes"] < 1.5e9
    assert facts["seconds"] == pytest.approx(130_000 / facts["samples_per_second_per_worker"] / 2)
    assert "nothing written" in cli("cdl", "--dry-run", "--out", "s.zarr").stdout
    assert os.listdir(tmp_path) == []


def test_json_and_quiet_keep_stdout_and_stderr_clean(cli: Cli) -> None:
    quiet = cli("cdl", *SMALL, "--out", "s.zarr", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


BAD = [
    (("--slots", "0"), "slots = 0"),
    (("--slots", "1.5"), "not a valid integer"),
    (("--speed", "-3"), "greater than or equal to 0"),
    (("--speed", "fast"), "neither a number nor a range MIN:MAX"),
    (("--speed", "9:3"), "runs backwards"),
    (("--crop", "700"), "more than the 667 subcarriers"),
    (("--delay-spread", "0"), "greater than 0"),
    (("--delay-spread", "nan"), "finite number"),
    (("--model", "F"), "'A', 'B', 'C', 'D', 'E'"),
    (("--uplink", "magic"), "'comb', 'independent-phases', 'same-coefficients'"),
    (("--train", "0", "--val", "0", "--test", "0"), "give at least one of them samples"),
    (("--train", "-1"), "greater than or equal to 0"),
    (("--seed", "-1"), "greater than or equal to 0"),
    (("--workers", "-1"), "--workers"),
    (("--shard-samples", "100"), "give a multiple of 256"),
    (("--shard-samples", "0"), "give a multiple of 256"),
    (("--train", "10000000000000"), "GB more and the disk has"),
    (("--dry-run", "--out", "no/such/dir/s.zarr"), "make it first"),
    (("--antennas", "1024", "--subcarriers", "4096", "--crop", "4096"), "GB of memory"),
    (("--engine", "magic"), "allowed: closed-form, sionna"),
    (("--device", "cuda:99"), "use --device cpu"),
    (("--device", "tpu"), "allowed: cpu, cuda"),
    (("--sloots", "3"), "--slots"),
    (("--recipe", "absent.toml"), "cannot read the recipe"),
    (("--scheduler", "tcp://127.0.0.1:9"), "no Dask scheduler answers"),
    (("--out", "/proc/s.zarr"), "cannot write"),
    (("--out", "no/such/dir/s.zarr"), "make it first"),
    (("extra",), "unexpected extra argument"),
]


@pytest.mark.parametrize(
    ("arguments", "words"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_leaves_nothing(
    cli: Cli, tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    given = ("cdl", "--train", "10", "--val", "0", "--test", "0", "--out", "s.zarr")
    assert_one_line_error(cli(*given, *arguments), 2, words)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "Missing command"),
        (("cdl",), 2, "Missing option '--out'"),
        (("destroy",), 2, "No such command 'destroy'"),
        (("inspect", "absent.zarr"), 2, "is not a datagen store"),
        (("verify", "absent.zarr"), 2, "is not a datagen store"),
        (("regenerate", "absent.json", "--out", "s.zarr"), 2, "cannot read the manifest"),
        (("manifest", "absent.zarr"), 2, "is not a datagen store"),
        (("cdl", "--out", "/", "--train", "10"), 2, "names no directory to make"),
        (("cluster-check", "tcp://127.0.0.1:9"), 2, "no Dask scheduler answers"),
        (
            ("cdl", "--recipe", "bad.toml", "--out", "s.zarr"),
            2,
            "unknown key 'delay_spred_ns'; did you mean 'delay_spread_ns'?",
        ),
    ],
)
def test_other_bad_input(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    (tmp_path / "bad.toml").write_text("delay_spred_ns = 300.0\n")
    result = cli(*arguments)
    if not arguments:
        assert result.returncode == code
        return
    assert_one_line_error(result, code, words)
    assert os.listdir(tmp_path) == ["bad.toml"]


def test_pictures(small_store: Store, cli: Cli, tmp_path: Path) -> None:
    assert cli("inspect", str(small_store.path), "--plot", "p.svg").returncode == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert_one_line_error(cli("inspect", str(small_store.path), "--plot", "p.xyz"), 2, "cannot draw p.xyz")
    assert_one_line_error(cli("inspect", str(small_store.path), "--plot", "no/p.png"), 2, "cannot draw no/p.png")
    one = datagen.generate(small_recipe(train=3, val=0, slots=1), tmp_path / "one.zarr")
    assert cli("inspect", str(one.path), "--plot", "one.png").returncode == 0


def test_inspecting_a_damaged_store(small_store: Store, cli: Cli, tmp_path: Path) -> None:
    shard = Path(shutil.copytree(small_store.path, tmp_path / "s.zarr")) / "train/Y/c/0/0/0"
    os.truncate(shard, 1000)
    assert_one_line_error(cli("inspect", "s.zarr", "--json"), 1, "train/Y cannot be read", "see datagen verify")
    shard.unlink()
    assert_one_line_error(cli("inspect", "s.zarr", "--plot", "p.png"), 1, "train/Y are missing or not finite")
    assert os.listdir(tmp_path) == ["s.zarr"]


def test_output_into_a_closed_pipe(small_store: Store) -> None:
    script = Path(sys.executable).with_name("datagen")
    result = subprocess.run(
        f"{script} manifest {small_store.path} | head -n 1", shell=True, capture_output=True, text=True
    )
    assert result.stdout == "{\n"
    assert result.stderr == ""


def test_version(cli: Cli) -> None:
    assert cli("--version").stdout == f"datagen, version {datagen.__version__}\n"
