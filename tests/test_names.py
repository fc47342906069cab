"""Names are found whatever their hyphens, underscores and capitals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import zoo
from tests.conftest import Cli, assert_one_line_error
from tests.zoo_fixtures import measured, save, untrained
from zoo import config, registry
from zoo.errors import ZooError
from zoo.locate import locate
from zoo.names import find, matching

MODEL = "csinet-tiny-66b"


@pytest.fixture
def shipped(collection: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The collection in the place of the package's models."""
    monkeypatch.setattr(registry, "WEIGHTS", collection)
    return collection


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("rd-jscc", "rd-jscc"),
        ("rdjscc", "rd-jscc"),
        ("RD_JSCC", "rd-jscc"),
        ("GD_CSI", "gd-csi"),
        ("Gd Csi multiRate", "gd-csi-multirate"),
        ("CsiNet", "csinet"),
        ("rd-jsc", "rd-jsc"),  # none
        ("a-b", "a-b"),
        ("ab", "ab"),
        ("A_B", "A_B"),  # one of two
    ],
)
def test_a_name_stands_for_the_one_that_it_is_like(given: str, found: str) -> None:
    assert find(given, [*config.names(), "a-b", "ab"]) == found


def test_patterns_are_shell_patterns_first() -> None:
    known = ["gd-csi-cdl-128b", "GD-other", "klt-cdl-64b"]
    assert matching("GD*", known) == ["GD-other"]
    assert matching("gdcsi*", known) == ["gd-csi-cdl-128b"]
    assert matching("KLT_*_[0-9]*b", known) == ["klt-cdl-64b"]
    assert matching("*", known) == known
    assert matching("x*", known) == []


def test_recipes(tmp_path: Path) -> None:
    for given, family in (
        ("rdjscc", "rd-jscc"),
        ("RDJSCC-Paper", "rd-jscc-paper"),
        ("CSINet-Lite", "csinet-lite"),
        ("gd_csi_paper", "gd-csi-paper"),
    ):
        assert config.load(given).family == family  # which is what models are named by
    with pytest.raises(ZooError, match="unknown recipe 'rdjsccc'; nearest: rd-jscc"):
        config.load("rdjsccc")
    with pytest.raises(ZooError, match=r"unknown recipe 'RD_JSCC\.toml'"):  # files are meant to the letter
        config.load("RD_JSCC.toml")


def test_models(shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given in (MODEL, "CsiNet_Tiny_66B", "csinettiny66b"):
        assert zoo.load(given).bits == 66
        assert locate(given) == (shipped / MODEL, registry.read_index(shipped)[MODEL])
    with pytest.raises(ZooError, match="unknown model 'CSINET-TINY-67b'; nearest: csinet-tiny-"):
        zoo.load("CSINET-TINY-67b")
    save(tmp_path / "CSINET-TINY-66B", untrained("csinet", rate=72), architecture="csinet")
    monkeypatch.chdir(tmp_path)
    assert zoo.load("CSINET-TINY-66B").bits == 72  # a directory of that name goes first


def test_commands_use_the_name_itself(shipped: Path, zoo_cli: Cli) -> None:
    [row] = json.loads(zoo_cli("check", "CSINET_TINY_66B", "--json").stdout)
    assert (row["model"], row["ok"]) == (MODEL, True)
    assert [row["model"] for row in json.loads(zoo_cli("list", "CSINET*132?", "--json").stdout)] == ["csinet-tiny-132b"]
    assert json.loads(zoo_cli("list", "csinet-tiny-1*", "--remote", "--json").stdout)[0]["model"] == "csinet-tiny-132b"
    assert json.loads(zoo_cli("bench", "csinettiny66b", "--batch", "1", "--json").stdout)["model"] == MODEL
    assert_one_line_error(zoo_cli("pull", "CsiNet-tiny-66b"), 2, f"{MODEL} comes with the package")


def test_families(collection: Path, zoo_cli: Cli, tmp_path: Path) -> None:
    draft = ("--repo", "org/csinet-tiny", "--dry-run", "--json")
    told = zoo_cli("publish", "CsiNet_Tiny", "--from", collection, *draft)
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["family"] == "csinet-tiny"
    two = Path(shutil.copytree(collection, tmp_path / "two", ignore=shutil.ignore_patterns("index.json")))
    measured(save(two / "csi-net-tiny-66b", untrained("csinet"), architecture="csinet"))
    words = "has no family 'CsiNet_Tiny'; it has csi-net-tiny, csinet-tiny"
    assert_one_line_error(zoo_cli("publish", "CsiNet_Tiny", "--from", two, *draft), 2, words)
