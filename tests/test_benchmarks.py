"""Tables of the released models by scenario: which rows there are, where they go."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import zoo
from benchmarks import ablation, effort, jscc, models, tables, training
from benchmarks.released import missing, released, remark
from datagen import COST2100Recipe, generate
from scripts import plan
from tests.conftest import Cli, assert_one_line_error, small_recipe
from zoo import limits, registry
from zoo.data import Cached, Store
from zoo.evaluate_jscc import SNRS_DB
from zoo.train import Trainer

OUTDOOR = {
    "name": "cost2100-outdoor-v1", "scenario": "cost2100", "recipe_digest": "sha256:0", "split": "test", "samples": 500
}  # fmt: skip
LIMITS = {
    "data": {"name": OUTDOOR["name"], "recipe_digest": "sha256:0"},
    "rows": [{"name": "Gaussian", "bits": [32, 64, 128], "nmse_db": [-1.0, -2.0, -3.0]}],
}


def codec(model: str, nmse_db: float) -> dict[str, Any]:
    """Results of a codec without side information."""
    return {
        "model": model, "data": OUTDOOR, "parameters": 850_000, "bits": registry.rate_of(model), "decoder_has_y": False,
        "side_information": [{"snr_db": None, "nmse_db": nmse_db}],
    }  # fmt: skip


def code(model: str, data: dict[str, Any] = OUTDOOR) -> dict[str, Any]:
    """Results of a model that sends symbols."""
    points = [
        {"k": k, "snr_db": snr, "steps": 0, "bits": None, "cnr_db": None, "nmse_db": -5.0}
        for k in jscc.RATES for snr in SNRS_DB
    ]  # fmt: skip
    return {"model": model, "data": data, "parameters": 290_000, "symbols": list(jscc.RATES), "points": points}


CODECS = [codec("crnet-cost2100-132b", -2.0), codec("gd-csi-cost2100-128b", -4.0)]


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results in the place of those of the package: codecs of one data set, models that send symbols of two."""
    office = {**OUTDOOR, "name": "inh-open-v1", "scenario": "inh", "recipe_digest": "sha256:1"}
    path = tmp_path / "weights"
    for result in (*CODECS, code("rd-jscc-cost2100-k32"), code("klt-jscc-inh-k32", office)):
        directory = path / result["model"]
        directory.mkdir(parents=True)
        config = {
            "format_version": registry.FORMAT_VERSION,
            "name": result["model"],
            "architecture": "",
            "codec": {},
            "weights_sha256": "",
        }
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "results.json").write_text(json.dumps(result))
    registry.write_index(path)
    monkeypatch.setattr(registry, "WEIGHTS", path)
    return path


def cells(table: str, name: str) -> list[str]:
    """Of the row of a name."""
    [row] = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in row.split("|")[2:-1]]


def test_codecs_without_side_information() -> None:
    table = models.markdown(CODECS, LIMITS)
    assert cells(table, "`gd-csi`") == ["0.85 M", "", "-4.0", "", "", ""]
    assert cells(table, "`crnet`") == ["0.85 M", "", "-2.0", "", "", ""]  # 132 bits stand under 128
    assert cells(table, "*limit: Gaussian*") == ["", "-2.0", "-3.0", "", "", ""]  # 32 bits stand nowhere
    assert cells(table, "*published: GD-CSI, official set*") == ["", "", "-7.5", "-8.7", "-9.5", "-10.9"]
    assert "Y at 30 dB" not in table
    assert "CsiNet+, quantised, official set -4.9 at 384, -6.7 at 768" in table  # rather than under 320
    assert "*published: CsiNet+" not in table


def test_full_sizes_that_are_missing_are_rows() -> None:
    assert cells(models.markdown(CODECS, LIMITS), "`gd-csi-paper`, *missing: needs a GPU*") == [
        "15.19 M",
        "",
        "",
        "",
        "",
        "",
    ]
    assert missing([*CODECS, codec("gd-csi-paper-cost2100-128b", -7.0)]) == {}
    for scenario, session, name, millions in (
        ("cost2100", "jscc", "rd-jscc-paper", 14.3),
        ("inh", "inh", "rd-jscc-paper-indoor", 1.7),
    ):
        data = {**OUTDOOR, "scenario": scenario}
        there = [code(f"{family}-{scenario}-k32", data) for family in ("rd-jscc", "klt-jscc")]
        assert {family: round(size / 1e6, 1) for family, size in missing(there).items()} == {name: millions}
        waiting = {job.resolved().family for job in plan.load(session).jobs}
        assert missing(there).keys() <= waiting  # by these very names a session on a GPU makes them


def test_a_generated_set_is_told_from_the_official_one() -> None:
    judged = json.loads((tables.RESULTS / "csinet_judge.json").read_text())["environments"]
    for environment, words in (
        ("outdoor", "reach -3.99, -2.24 and -1.61 dB on ours, and -4.51, -2.81 and -1.93 dB"),
        ("indoor", "and -8.65, -6.24 and -5.84 dB"),
    ):
        told = remark({**OUTDOOR, "name": f"cost2100-{environment}-v1"})
        assert words in told
        assert f"{judged[environment]['nmse_db']['default']['128']:.2f}" in told
    assert remark(OUTDOOR) in models.markdown(CODECS, LIMITS)
    assert remark({**OUTDOOR, "name": "cdl-c-fdd-v1", "scenario": "cdl"}) == ""


def test_published_points_over_the_link() -> None:
    table = jscc.over_snr([code("rd-jscc-cost2100-k32"), code("klt-jscc-cost2100-k32")], bounds())
    assert cells(table, "*published: RD-JSCC, official set*") == ["16", "", "", "", "-12.2", ""]  # at k = 16 only
    assert cells(table, "`rd-jscc-paper`, *missing: needs a GPU*") == ["16", "", "", "", "", ""]
    assert table.count("| `klt-jscc` |") == 3
    assert table.count("| `rd-jscc` |") == 3


def bounds() -> list[dict[str, Any]]:
    row = {"name": jscc.BOUNDS[0], "snr_db": list(SNRS_DB), "nmse_db": [-9.0] * len(SNRS_DB)}
    return [{"link": {"k": k}, "rows": [row]} for k in jscc.RATES]


def test_sweeps_are_of_the_models_of_the_scenario(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jscc, "evaluate_jscc", lambda model, store, **options: {"points": [{"model": model}]})
    monkeypatch.setattr(zoo, "load", lambda model: SimpleNamespace(efforts=3))
    monkeypatch.setattr(jscc, "leak_check", lambda model, store, **options: model)
    monkeypatch.setattr(limits, "over_link", lambda *given, **options: {})
    store: Any = None
    measured = jscc.measure(store, "uplink", "cost2100")
    assert {sweep["model"] for sweep in measured["sweeps"].values()} == {"rd-jscc-cost2100-k32"}
    assert len(measured["sweeps"]) == 5
    [effort] = [sweep for sweep in measured["sweeps"].values() if sweep["column"] == "effort"]
    assert [point["effort"] for point in effort["points"]] == [0, 1, 2]


def test_the_whole_band_is_a_sweep_where_it_is_kept(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any, dict[str, Any]]] = []

    def evaluated(model: str, store: Any, **options: Any) -> dict[str, Any]:
        asked.append((model, store, options))
        return {"points": []}

    monkeypatch.setattr(jscc, "Store", lambda path: path)
    monkeypatch.setattr(zoo, "load", lambda model: SimpleNamespace(efforts=3))
    monkeypatch.setattr(jscc, "evaluate_jscc", evaluated)
    monkeypatch.setattr(jscc, "leak_check", lambda *given, **options: {})
    monkeypatch.setattr(limits, "over_link", lambda *given, **options: {})
    store: Any = "crop.zarr"
    found = jscc.measure(store, "uplink", "cost2100", 7, "band.zarr")
    [(model, _, options)] = [given for given in asked if given[1] == "band.zarr"]
    assert found["sweeps"]["SNR [dB], error over the whole band"]["model"] == model
    assert (options["domain"], options["samples"], options["snr_db"]) == ("spatial-frequency", 7, SNRS_DB)
    assert all("domain" not in given[2] for given in asked if given[1] == store)


def test_each_scenario_has_its_place(collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    (tmp_path / "limits-cost2100.json").write_text(json.dumps(LIMITS))
    (tmp_path / "csinet_judge.json").write_bytes(
        (Path(models.__file__).parent / "results/csinet_judge.json").read_bytes()
    )
    page = tmp_path / "README.md"
    begin = (
        "<!-- benchmarks/models.py -->\nold\n<!-- /benchmarks/models.py -->\n<!-- benchmarks/models.py cost2100 -->\n"
    )
    page.write_text(f"{begin}<!-- /benchmarks/models.py cost2100 -->\n")
    given = ["--scenario", "cost2100", "--readme", str(page), "--picture", str(tmp_path / "rd.png")]
    monkeypatch.setattr("sys.argv", ["models.py", *given])
    models.main()
    table = models.markdown(released("cost2100", symbols=False), LIMITS)
    assert page.read_text() == f"{begin}{table}<!-- /benchmarks/models.py cost2100 -->\n"
    assert (tmp_path / "rd.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit, match="no models of 'inh' send payloads; there are"):
        released("inh", symbols=False)


def test_pictures_are_of_one_data_set(collection: Path, zoo_cli: Cli, tmp_path: Path) -> None:
    assert zoo_cli("plot", "rd", "--out", "rd.png").returncode == 0  # codecs are of one data set
    chosen = zoo_cli("plot", "snr", "--scenario", "inh", "--k", "16", "--out", "snr.png")
    assert (chosen.returncode, chosen.stderr) == (0, "wrote snr.png\n")
    for arguments, words in (
        (("snr", "--k", "16"), "the package has models of different data; choose one: --scenario inh|cost2100"),
        (("rd", "--scenario", "inh"), "unknown scenario 'inh'; allowed: cost2100"),
        (("rd", "crnet-cost2100-132b", "--scenario", "cost2100"), "--scenario goes without a MODEL"),
        (("snr", "rd-jscc-cost2100-k32", "klt-jscc-inh-k32"), "results of different data cannot share a picture"),
    ):
        assert_one_line_error(zoo_cli("plot", *arguments, "--out", "none.png"), 2, words)
    assert not (tmp_path / "none.png").exists()


# what departures from the paper are worth ------------------------------------------------------------------------------------


def test_variants_differ_from_their_base_in_one_thing() -> None:
    for name, (_, base, change, _) in ablation.VARIANTS.items():
        assert len(change) == (base is not None)
        if base is not None:
            [(key, value)] = change.items()
            assert ablation.differences(base).get(key) != value
            assert ablation.differences(name)[key] == value


def test_ablation_trains_measures_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = generate(small_recipe(train=32, val=8, test=8), tmp_path / "store.zarr", shard_samples=256)
    store, tiny = Store(made.path), {"codec.width": 4, "codec.multipliers": (1, 2), "training.batch": 8}
    results = ablation.measure(store, 2, 8, tmp_path / "runs", 0.0, tiny)
    rows, table = results["variants"], ablation.markdown(results)
    assert list(rows) == list(ablation.VARIANTS)
    assert [cells(table, name)[-1] != "" for name in rows] == [True] * 7
    assert cells(table, "A")[0] == "as in the paper"
    assert cells(table, "C")[:4] == ["B decoded in one call, weights as they are", "64, 128, 192, 256", "eq. (7)", "1"]
    gain = rows["C"]["rates"]["128"]["nmse_db"] - rows["B"]["rates"]["128"]["nmse_db"]
    assert cells(table, "C")[5] == f"{gain:+.2f} to B"
    assert gain != 0
    assert cells(table, "E")[1:4] == ["128", "decoder's error", "1"]
    assert "for 2 of its 10000 steps of 8 samples, 16 in all" in table
    digests = {name: {rate: one["weights_sha256"] for rate, one in row["rates"].items()} for name, row in rows.items()}
    assert digests["B"] == digests["C"] != digests["D"]
    assert (rows["D"]["config"]["side_information"], rows["F"]["config"]["side_information"]) == (True, False)
    assert (rows["D"]["config"]["norm"], rows["G"]["config"]["norm"]) == ("element", "channel")

    monkeypatch.delattr(Trainer, "update")  # no step is left
    source = Cached(store, "cpu", 16, 0)
    again = ablation.make("D", ablation.recipe("D", 2, tiny), source, tmp_path / "runs")
    assert [registry.read_config(path)["weights_sha256"] for path in again] == list(digests["D"].values())


@pytest.mark.parametrize("file", [*tables.RESULTS.glob("ablation.json")], ids=str)
def test_readme_has_the_ablation_as_measured(file: Path) -> None:
    results = json.loads(file.read_text())
    root = Path(models.__file__).parent.parent
    assert ablation.markdown(results) in (root / "README.md").read_text()
    manifest = json.loads((root / "manifests/datasets/cdl-c-fdd-v1.json").read_text())
    assert results["data"]["recipe_digest"] == manifest["recipe_digest"]
    for name, row in results["variants"].items():  # measured as the variants are today
        codec = json.loads(json.dumps(ablation.recipe(name, results["training"]["steps"], {}).codec))
        assert [int(rate) for rate in row["rates"]] == (codec.pop("rates", None) or [codec["rate"]])
        assert codec.items() <= row["config"].items()


@pytest.mark.parametrize("benchmark", [effort, training])
def test_readme_has_the_tables_as_measured(benchmark: ModuleType) -> None:
    results = json.loads((tables.RESULTS / f"{benchmark.__name__.rpartition('.')[2]}.json").read_text())
    assert benchmark.markdown(results) in (Path(models.__file__).parent.parent / "README.md").read_text()


def test_effort_is_measured_by_payloads(tmp_path: Path) -> None:
    recipe = COST2100Recipe(train=0, val=0, test=4)
    store = Store(generate(recipe, tmp_path / "store.zarr", shard_samples=256).path)
    rows = effort.measure({"cost2100": store}, 4)["rows"]
    assert [row["bits"] for row in rows] == [64, 128, 192, 256, 320]
    for row in rows:
        none, some, more = (one["nmse_db"] for one in row["efforts"])
        assert more <= some + 1e-6
        assert some < none


def test_training_is_timed_beside_the_u_net() -> None:
    changes = {"training.batch": 5, "codec.width": 8}
    rows = training.measure(0.0, changes)["rows"]
    assert rows[training.REFERENCE]["times_reference"] == 1
    assert all(row["batch"] == 5 and row["gflops"] > 0 for row in rows.values())
