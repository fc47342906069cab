"""What is released: manifests that regenerate, README figures that come from a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import datagen
from benchmarks import datagen as speed
from benchmarks import side_information
from benchmarks.tables import put_into
from datagen import CDLRecipe, COST2100Recipe, InHRecipe, Manifest, Recipe

ROOT = Path(__file__).parent.parent
MANIFESTS = sorted((ROOT / "manifests" / "datasets").glob("*.json"))


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: file.stem)
def test_released_manifests_are_whole_and_rightly_named(file: Path) -> None:
    manifest = Manifest.load(file)
    assert file.stem == manifest.name
    assert file.read_text() == manifest.to_json()
    assert f"[{manifest.name}](datasets/{file.name})" in (ROOT / "manifests" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("cdl-c-fdd-v1", CDLRecipe()),
        ("cost2100-outdoor-v1", COST2100Recipe()),
        ("cost2100-indoor-v1", COST2100Recipe(environment="indoor")),
        ("inh-open-v1", InHRecipe()),
        ("inh-open-uplink-v1", InHRecipe(uplink=True)),
    ],
)
def test_default_sets_are_released(name: str, recipe: Recipe) -> None:
    assert Manifest.load(ROOT / "manifests" / "datasets" / f"{name}.json").plan.recipe == recipe


@pytest.mark.parametrize("file", [file for file in MANIFESTS if "-mini-" not in file.stem], ids=lambda file: file.stem)
def test_first_and_last_shard_of_released_sets(file: Path) -> None:
    """Shards are independent, so two of some thirty stand for a set: the released fingerprints against fresh samples."""
    from datagen.manifest import ShardRecord, relative_error
    from datagen.scenarios import make_engine
    from datagen.simulate import simulate_shard

    manifest = Manifest.load(file)
    engine = make_engine(manifest.plan.recipe)
    for record in (manifest.shards[0], manifest.shards[-1]):
        fresh = ShardRecord.of(record.shard, simulate_shard(engine, record.shard))
        assert relative_error(record, fresh) < 1e-5


@pytest.mark.parametrize("file", [file for file in MANIFESTS if "-mini-" in file.stem], ids=lambda file: file.stem)
def test_mini_sets_regenerate(file: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(file)
    store, same = datagen.regenerate(manifest, tmp_path / "mini.zarr")
    assert same.error < 1e-5
    assert datagen.verify(store, manifest).bad == []


@pytest.mark.parametrize("script", [speed, side_information])
def test_readme_figures_are_those_of_the_benchmarks(script: ModuleType) -> None:
    name = Path(str(script.__file__)).stem
    results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert results["recipe_digest"] == CDLRecipe().digest
    assert script.markdown(results) in (ROOT / "README.md").read_text()


def test_noise_hides_what_weak_components_give_away() -> None:
    results = side_information.measure(3000, CDLRecipe())
    by_components, by_snr = results["by_components"], results["by_snr_of_y_db"]
    assert by_components["48"]["Y"] == pytest.approx(-2.8, abs=0.5)
    assert by_components["140"]["Y"] < -35
    assert by_snr["20"]["Y"] == pytest.approx(-2.7, abs=0.7)
    assert by_snr["none"]["Y"] == pytest.approx(by_components["140"]["Y"], abs=0.5)


def test_tables_go_to_their_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- s.py -->\nold\n<!-- /s.py -->\nb\n")
    put_into(page, "s.py", "new\n")
    assert page.read_text() == "a\n<!-- s.py -->\nnew\n<!-- /s.py -->\nb\n"
    with pytest.raises(ValueError, match="has no place"):
        put_into(page, "t.py", "new\n")


def test_benchmark_reaches_its_marks() -> None:
    """The committed run, not this machine's clock: what was to be reached when the engine was written."""
    ratios = json.loads((ROOT / "benchmarks" / "results" / "datagen.json").read_text())["ratios"]
    assert ratios["closed_form_over_naive"] >= 800
    assert ratios["end_to_end_over_naive"] >= 300
    assert ratios["two_workers_over_one"] >= 1.8


def test_benchmark_runs(tmp_path: Path) -> None:
    out = tmp_path / "b.json"
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "datagen.py", "--out", out, "--seconds", "0.01", "--shards", "1"],
        check=True,
        capture_output=True,
    )
    results = json.loads(out.read_text())
    assert results["naive_triples_per_second"] < results["closed_form_triples_per_second"]
    assert results["end_to_end"]["1"]["peak_rss_bytes_per_worker"] < 1.5e9
    assert "triples/s" in speed.markdown(results)
