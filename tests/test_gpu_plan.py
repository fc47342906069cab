"""Sessions on a GPU, rehearsed here: plans, cuts, pieces, and what arrives at home."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from scripts import log, pieces, plan, session
from zoo.checkpoint import check
from zoo.data import Simulated, Store
from zoo.errors import CheckError, ZooError
from zoo.models.base import Network
from zoo.registry import parts, read_index
from zoo.train import build

SCRIPT = Path(__file__).parents[1] / "scripts/train_on_gpu.py"
TINY = """
minutes = 60

[data]
manifest = "cdl-c-fdd-mini-v1"

[[jobs]]
name = "several"
recipe = "gd-csi-paper-multirate"
family = "gd-csi-paper"
share = 1
set = { "codec.rates" = [64, 128] }

[[jobs]]
name = "tuned"
recipe = "gd-csi-paper-sampler"
family = "gd-csi-paper"
init = "several"
share = 1
speed = false
set = { "codec.rates" = [64, 128] }

[[jobs]]
name = "adjscc"
recipe = "adjscc"
share = 1
set = { "codec.symbols" = [2, 4] }

[[jobs]]
name = "rd-jscc-paper"
recipe = "rd-jscc-paper"
init = "adjscc"
share = 1
speed = false
set = { "codec.symbols" = [2, 4] }

[[sweeps]]
name = "quantised"
models = "rd-jscc-paper-*"
symbols = [4]
snr_db = [5]
bits = ["none", 4]
"""


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def tiny(directory: Path, text: str = TINY) -> Path:
    (directory / "tiny.toml").write_text(text)
    return directory / "tiny.toml"


def assert_refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a rehearsed session that was killed and went on, its pieces, and what was made of them."""
    path = tmp_path_factory.mktemp("session")
    start = ("run", tiny(path), "--out", path / "out", "--device", "cpu", "--rehearse")
    process = subprocess.Popen(command(*start), stdout=subprocess.DEVNULL)
    while process.poll() is None and "done" not in events(path / "out", "train several"):
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -9
    second = run(*start)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "train several" not in second.stdout
    packed = run("pack", path / "out", "--into", path / "pieces", "--piece-mib", "0.1")
    assert packed.returncode == 0, packed.stderr
    joined = run("join", path / "pieces", "--into", path / "home")
    assert joined.returncode == 0, joined.stderr
    return path


def events(out: Path, step: str) -> list[str]:
    file = out / log.LOG
    return [event["event"] for event in log.Log(file).events if event["step"] == step] if file.exists() else []


# plans -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", plan.names())
def test_plans_build_and_each_job_fits_the_one_it_starts_from(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.train.FIT_SAMPLES", 256)
    found = plan.load(name)
    assert found.minutes <= 30
    assert found.reserve_minutes < found.minutes
    assert found.data.test_samples >= 20_000
    manifest = found.data.load_manifest()
    assert manifest is not None
    source = Simulated(manifest.recipe, "cpu")
    made: dict[str, Network[Any]] = {}
    for job in found.jobs:
        codec = build(job.resolved(), source)
        assert isinstance(codec, Network)
        if job.init is not None:
            codec.start_from(made[job.init].state_dict())
        made[job.name] = codec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("minutes = 60", "minutes = 0"), "minutes"),
        (('init = "several"', 'init = "rd-jscc-paper"'), "no job before it"),
        (('name = "tuned"', 'name = "several"'), "two jobs are named several"),
        (('recipe = "rd-jscc-paper"', 'recipe = "rd-jscc-papr"'), "unknown recipe"),
        (('recipe = "adjscc"', 'recipe = "klt-jscc"'), "fitted in closed form"),
        (("share = 1", "share = 1\nseeds = 1"), "did you mean 'seed'"),
        (("share = 1\n", ""), "jobs.0.share: Field required"),
        (("[data]", '[data]\nrecipe = "mine.toml"'), "one of manifest and recipe"),
    ],
)
def test_bad_plans_are_refused_in_one_line(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=message):
        plan.load(tiny(tmp_path, TINY.replace(*change, 1)))


def test_no_gpu_and_no_plan_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert_refused(run("run", "cdl", "--out", tmp_path / "out"), 2, "device 'cuda' cannot be used")
    assert_refused(
        run("run", "cdll", "--out", tmp_path / "out", "--device", "cpu"), 2, "unknown plan 'cdll'; there are cdl"
    )
    assert_refused(run("status", tmp_path / "out"), 2, "holds no session")
    assert_refused(run("pack", tmp_path / "out", "--into", tmp_path / "pieces"), 2, "holds no session")
    assert list(tmp_path.iterdir()) == []


# sessions --------------------------------------------------------------------------------------------------------------------


def test_a_killed_session_goes_on_and_does_nothing_twice(home: Path) -> None:
    steps = dict(log.states(log.Log(home / "out" / log.LOG)))
    speeds = {"speed tuned", "speed rd-jscc-paper"}
    assert {step for step, state in steps.items() if state != "done"} == speeds
    assert {steps[step] for step in speeds} == {"left out"}
    for step in steps:
        assert events(home / "out", step).count("done") == (step not in speeds), step
    told = json.loads(run("status", home / "out", "--json").stdout)
    assert told["steps"] == steps
    assert 0 < told["minutes_left"] < 60


def test_what_comes_home_is_a_collection_that_replays(home: Path) -> None:
    models = home / "home/models"
    names = ["adjscc-cdl-k4", "gd-csi-paper-cdl-128b", "gd-csi-paper-cdl-64b", "rd-jscc-paper-cdl-k4"]
    assert sorted(read_index(models)) == names
    [shared] = {part for name in names for part in parts(models / name)}  # of both rates of GD-CSI
    assert list(models.glob("*.safetensors")) == [shared]
    for name in names:
        assert check(models / name, zoo.load(models / name)) < 1e-6
        found = json.loads((models / name / "results.json").read_text())
        assert found["data"]["name"] == "cdl-c-fdd-mini-rehearsal-v1"
        assert str(home) not in (models / name / "config.json").read_text()
    measured = json.loads((home / "home/measured/rd-jscc-paper-cdl-k4.json").read_text())
    assert [leak["k"] for leak in measured["leaks"]] == [2, 4]
    assert [point["bits"] for point in measured["quantised"] if point["steps"] == 0] == [None, 4]
    rows = json.loads((home / "home/measured/gd-csi-paper-cdl-128b.json").read_text())["throughput"]
    assert [(row["dtype"], row["decoding_steps"]) for row in rows] == [
        (dtype, steps) for dtype in ("float32", "bfloat16") for steps in (1, 4)
    ]
    assert (home / "home/measured/speed-several.json").is_file()
    assert (home / "home/runs/tuned/log.jsonl").is_file()


def test_of_two_models_of_one_name_the_better_one_is_kept(home: Path, tmp_path: Path) -> None:
    released = tmp_path / "released"
    shutil.copytree(home / "out" / log.RELEASED, released)
    for job, nmse_db in (("several", -3.0), ("tuned", -4.0)):
        for path in released.glob(f"{job}/*/results.json"):
            found = json.loads(path.read_text())
            found["side_information"] = [{**level, "nmse_db": nmse_db} for level in found["side_information"]]
            path.write_text(json.dumps(found))
    chosen = session.choose(released, tmp_path / "models")
    assert chosen["gd-csi-paper-cdl-64b"] == chosen["gd-csi-paper-cdl-128b"] == "tuned"
    for path in released.glob("tuned/*-64b/results.json"):
        path.write_text(path.read_text().replace("-4.0", "-2.0"))
    assert session.choose(released, tmp_path / "models")["gd-csi-paper-cdl-64b"] == "several"
    assert set(read_index(tmp_path / "models")) == set(chosen)
    first, second = (parts(tmp_path / "models" / f"gd-csi-paper-cdl-{rate}b") for rate in (64, 128))
    assert first != second  # each rate with the weights of its own job
    for name in chosen:
        assert check(tmp_path / "models" / name, zoo.load(tmp_path / "models" / name)) < 1e-6


def test_another_plan_is_refused_where_a_session_lies(home: Path, tmp_path: Path) -> None:
    other = tiny(tmp_path, TINY.replace("minutes = 60", "minutes = 50"))
    assert_refused(run("run", other, "--out", home / "out", "--device", "cpu", "--rehearse"), 2, "another plan")


def test_minutes_are_shared_among_the_jobs_that_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])
    work = session.Session(plan.load(tiny(tmp_path)), tmp_path / "out", "cpu", False, None)
    first, second, third, _ = work.plan.jobs
    work.log.add("begun", "session", minutes=45.0)
    assert work._until(first) == 1000 + 60 * 10  # 40 minutes for four jobs, 5 in reserve
    clock[0] += 300
    assert work._until(first) == 1000 + 60 * 10  # gone on with after a cut
    work.log.add("done", "train several")
    clock[0] = 1000 + 60 * 25
    assert work._until(second) == 1000 + 60 * 30  # 15 minutes for three
    clock[0] = 1000 + 60 * 39.9
    work.log.add("done", "train tuned")
    work._until(third)
    assert work.log.state("train adjscc") == "open"  # three seconds are not worth a start
    work.log.add("begun", "session", minutes=25.0)
    assert work._until(third) == pytest.approx(clock[0] + 60 * 10)


def test_what_does_not_compile_is_trained_without(tmp_path: Path) -> None:
    work = session.Session(plan.load(tiny(tmp_path)), tmp_path / "out", "cpu", False, None)
    first, second, *_ = work.plan.jobs
    work.log.add("done", "speed several", facts={"compile_error": None})
    assert work._recipe(first).training.compile is None
    work.log.add("done", "speed adjscc", facts={"compile_error": "RuntimeError: no C compiler"})
    recipe = work._recipe(second)
    assert recipe.training.compile is False
    assert recipe.training.init == "runs/several"


def test_a_line_that_a_cut_has_torn_is_dropped(tmp_path: Path) -> None:
    first = log.Log(tmp_path / log.LOG)
    first.add("begun", "train a", until=1.5)
    first.add("done", "train a")
    with first.path.open("a") as file:
        file.write('{"time": 1, "event": "beg')
    again = log.Log(first.path)
    assert [event["event"] for event in again.events] == ["begun", "done"]
    again.add("failed", "train b", problem="x")
    assert log.Log(first.path).events == again.events
    assert [again.state(f"train {job}") for job in "abc"] == ["done", "failed", "open"]


def test_a_step_that_fails_is_on_record_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = session.Session(plan.load(tiny(tmp_path)), tmp_path / "out", "cpu", True, None)
    monkeypatch.setattr(session.Session, "_make_data", lambda self: 1 // 0)
    with pytest.raises(CheckError, match="failed: data"):
        work.run()
    assert work.log.state("data") == "failed"
    assert work.log.state("train several") == "open"
    monkeypatch.setattr(session.Session, "_make_data", lambda self: {})
    for step in ("_measure_speed", "_train", "_release"):
        monkeypatch.setattr(session.Session, step, lambda self, job: {})
    again = session.Session(work.plan, tmp_path / "out", "cpu", True, None)
    again.run()
    assert {state for _, state in log.states(again.log)} == {"done"}


def test_a_released_set_is_made_whole_and_compared_with_its_manifest(tmp_path: Path) -> None:
    text = TINY.replace("cdl-c-fdd-mini-v1", "cost2100-indoor-mini-v1")
    work = session.Session(plan.load(tiny(tmp_path, text)), tmp_path / "out", "cpu", False, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work.out)
        found = work._make_data()
    assert found["name"] == "cost2100-indoor-mini-v1"
    assert found["relative_error"] <= 1e-5
    assert Store(work.out / log.STORE).sizes == {"train": 512, "val": 128, "test": 256}


# pieces ----------------------------------------------------------------------------------------------------------------------


def packed(directory: Path) -> Path:
    """Pieces of two models of one network, and a log."""
    from safetensors.torch import save_file

    for name, value in (("a", 1.0), ("b", 2.0)):
        (directory / "out" / name).mkdir(parents=True)
        shared = {"trunk": torch.arange(3000.0), "empty": torch.zeros(0), "own": torch.full((10,), value)}
        save_file(shared, directory / "out" / name / "model.safetensors", {"about": name})
    (directory / "out/log.jsonl").write_text("{}\n")
    out = directory / "out"
    pieces.pack(out, [path for path in out.rglob("*") if path.is_file()], directory / "pieces", 5000)
    return directory / "pieces"


def test_pieces_are_small_and_what_files_share_is_in_them_once(tmp_path: Path) -> None:
    cut = packed(tmp_path)
    sizes = [path.stat().st_size for path in sorted(cut.glob("piece-*"))]
    assert sizes[:-1] == [5000] * (len(sizes) - 1)
    assert 12_000 < sum(sizes) < 13_000
    pieces.join([cut], tmp_path / "home")
    for path in ("a/model.safetensors", "b/model.safetensors", "log.jsonl"):
        assert (tmp_path / "home" / path).read_bytes() == (tmp_path / "out" / path).read_bytes()


def test_pieces_may_come_in_several_lots(tmp_path: Path) -> None:
    cut, later = packed(tmp_path), tmp_path / "later"
    later.mkdir()
    (cut / "piece-001").rename(later / "piece-001")
    assert_refused(run("join", cut, "--into", tmp_path / "home"), 2, "there is no piece-001")
    assert run("join", cut, later, "--into", tmp_path / "home").returncode == 0
    assert_refused(run("join", cut, later, "--into", tmp_path / "home"), 2, "exists")


def test_a_damaged_piece_is_refused(tmp_path: Path) -> None:
    cut = packed(tmp_path)
    content = bytearray((cut / "piece-000").read_bytes())
    content[100] ^= 1
    (cut / "piece-000").write_bytes(content)
    assert_refused(run("join", cut, "--into", tmp_path / "home"), 1, "piece-000 was changed on its way")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda index: index["files"][0].update(path="../escaped"), CheckError, "outside"),
        (lambda index: index["files"][0].update(path="/tmp/escaped"), CheckError, "outside"),
        (lambda index: index["files"][0].update(parts=[[0, 5]]), CheckError, "cannot be made of the pieces"),
        (lambda index: index["pieces"][0].update(name="../../piece"), ZooError, "no index of pieces"),
    ],
)
def test_an_index_that_lies_is_refused(change: Any, error: type[ZooError], message: str, tmp_path: Path) -> None:
    cut = packed(tmp_path)
    index = json.loads((cut / pieces.INDEX).read_text())
    change(index)
    (cut / pieces.INDEX).write_text(json.dumps(index))
    with pytest.raises(error, match=message):
        pieces.join([cut], tmp_path / "home")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "pieces"]
