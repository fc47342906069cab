"""Shared fixtures: a small recipe, a store of it, a small model, a Hub on loopback, and the real console scripts."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datagen import CDLRecipe, Store, generate
from tests.hub_server import HubServer

HUB = HubServer()
os.environ |= {  # the client reads them when it is imported
    "HF_ENDPOINT": HUB.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN_PATH": os.devnull,
}  # fmt: skip
for _variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(_variable, None)
DATAGEN = Path(sys.executable).with_name("datagen")
Cli = Callable[..., subprocess.CompletedProcess[str]]


def pytest_sessionfinish() -> None:
    HUB.close()


def small_recipe(**changes: object) -> CDLRecipe:
    """Physics of the default recipe, few samples: two full chunks and a part in train, a part of one in val."""
    return CDLRecipe.model_validate({"train": 600, "val": 40, "test": 0, "seed": 7, **changes})


@pytest.fixture
def recipe() -> CDLRecipe:
    return small_recipe()


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A finished store of :func:`small_recipe`, made in this process; tests must not change it."""
    return generate(small_recipe(), tmp_path_factory.mktemp("store") / "small.zarr", shard_samples=256)


def _heed_ctrl_c() -> None:
    """Shells start background jobs, and so a suite run in one, with SIGINT ignored; children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_cli(*arguments: str | Path, cwd: Path | None = None, program: str = "datagen") -> subprocess.Popen[str]:
    """Start an installed console script; warnings of our own modules are errors there too."""
    return subprocess.Popen(
        [DATAGEN.with_name(program), *map(str, arguments)], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=_heed_ctrl_c,
        env={**os.environ, "COLUMNS": "140"},
    )  # fmt: skip


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run the console script ``datagen`` to its end in a directory of the test's own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        process = start_cli(*arguments, cwd=tmp_path)
        out, err = process.communicate(timeout=240)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run


@pytest.fixture
def zoo_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the entry point of ``zoo`` in this process, which has torch already, in a directory of the test's own."""
    return in_process("zoo", tmp_path, monkeypatch, capsys)


def in_process(program: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the entry point of a program in this process.

    :param place: directory to run it in
    """
    main = importlib.import_module(f"{program}.cli").main
    monkeypatch.chdir(place)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # the suite keeps its handlers

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        argv = list(map(str, arguments))
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert isinstance(end.value.code, int)
        return subprocess.CompletedProcess([program, *argv], end.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of an untrained CsiNet of 66 bits that takes side information; tests must not change it."""
    from tests.zoo_fixtures import save, untrained

    return save(tmp_path_factory.mktemp("models") / "csinet-tiny-66b", untrained("csinet"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub server, empty, with a cache of the test's own; nobody is logged in and no retry waits."""
    from huggingface_hub import constants

    HUB.start()
    HUB.clear()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield HUB
    HUB.clear()


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rates of an untrained CsiNet with results and an index; tests must not change it."""
    from tests.zoo_fixtures import measured, save, untrained
    from zoo.registry import write_index

    path = tmp_path_factory.mktemp("collection")
    for rate in (66, 132):
        measured(save(path / f"csinet-tiny-{rate}b", untrained("csinet", rate=rate)))
    write_index(path)
    return path


@pytest.fixture
def manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where published families are put on record, and looked for: nothing yet."""
    from zoo import publication

    path = tmp_path / "manifests"
    path.mkdir()
    monkeypatch.setattr(publication, "PUBLISHED", path)
    return path


def assert_one_line_error(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The last line of stderr is the one message; progress bars and the like may stand before it, tracebacks may not."""
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith(("datagen:", "zoo:"))]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0]
