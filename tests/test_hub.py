"""Models from the Hub's cache, by the real client, offline."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import assert_one_line_error
from zoo.registry import write_index

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(small_model: Path, tmp_path: Path) -> Path:
    """A cache as the client lays it out: repository org/family at one commit, which branch main and tag v1 point to."""
    repository = tmp_path / "cache/models--org--family"
    snapshot = repository / "snapshots" / SHA
    shutil.copytree(small_model, snapshot / small_model.name)
    write_index(snapshot)
    (repository / "refs").mkdir()
    for name in ("main", "v1"):
        (repository / "refs" / name).write_text(SHA)
    return tmp_path / "cache"


def info(address: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [str(Path(sys.executable).with_name("zoo")), "check", address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("revision", ["", "@v1", f"@{SHA}"])
def test_by_branch_tag_and_commit(cache: Path, small_model: Path, revision: str) -> None:
    result = info(f"hf:org/family/{small_model.name}{revision}", cache)
    assert result.returncode == 0, result.stderr
    assert "golden vectors replayed" in result.stdout


def test_an_edited_file_in_the_cache_is_refused(cache: Path, small_model: Path) -> None:
    path = next(cache.rglob("vectors.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    result = info(f"hf:org/family/{small_model.name}", cache)
    assert result.returncode == 1
    assert "vectors.safetensors was changed" in result.stdout


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("hf:org/absent", "is not in the cache and the Hub cannot be reached"),
        ("hf:org/family/no-such-folder", "holds no model"),
        ("hf:org/family@v2", "is not in the cache and the Hub cannot be reached"),
        ("hf:org", "is no address"),
    ],
)
def test_bad_addresses(cache: Path, address: str, words: str) -> None:
    assert_one_line_error(info(address, cache), 2, words)
