"""A session on a GPU, step by step. What is done is in its log, so that a session that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import datagen
from datagen.recipe import load as load_recipe
from datagen.recipe import parse
from datagen.verification import regenerate
from scripts.log import LOG, MEASURED, MODELS, RELEASED, RUNS, STORE, Log, minutes_left, states
from scripts.plan import Job, Plan
from zoo import registry, results
from zoo.bench import bench
from zoo.checkpoint import load_model
from zoo.config import Recipe
from zoo.data import Cached, Source, Store, Streamed
from zoo.devices import local_device
from zoo.errors import CheckError, Interrupted, ZooError
from zoo.evaluate_jscc import evaluate_jscc, leak_check
from zoo.files import put, replacing
from zoo.locate import locate
from zoo.models.gdcsi import GDCSI
from zoo.models.jscc import JSCC
from zoo.release import release
from zoo.speed import training_speed
from zoo.train import train

SAVE_SECONDS = 45.0  # of training that a cut may cost
SPEED_SECONDS, BENCH_SECONDS = 4.0, 1.0  # least time of each measurement
DTYPES = ("float32", "bfloat16")  # of the weights where throughput is measured
REHEARSED = 64  # samples of what a rehearsal measures
DENSE: dict[str, Any] = {
    "width": 4,
    "hidden": 4,
    "decoder_blocks": 1,
}  # of a rehearsal, where networks are of dense layers
SMALL: tuple[dict[str, Any], ...] = (  # likewise of others: those of which a network has all fields
    {"width": 4, "multipliers": (1, 2), "kernel": 3, "norm": "channel"},
    {"encoder": ((2, 3), (4, 3), (2, 3)), "decoder": ((4, 3), (2, 3)), "blocks": 1},
)
SHORT: dict[str, Any] = {
    "training.steps": 4, "training.batch": 8, "training.warmup_steps": 0, "training.validation_samples": 8,
}  # fmt: skip


class Session:
    """A plan being carried out in a directory.

    :param out: directory, made if need be
    :param rehearse: small networks, few samples and steps, the same code
    :raises ZooError: the device cannot be used, or ``out`` holds a session of another plan
    """

    def __init__(self, plan: Plan, out: Path, device: str, rehearse: bool, minutes: float | None) -> None:
        self.plan, self.out, self.device, self.rehearse = plan, out.resolve(), local_device(device), rehearse
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"cannot write {out}: {error.strerror}") from None
        self.log = Log(self.out / LOG)
        what = {"plan": plan.model_dump(mode="json"), "device": device, "rehearse": rehearse}
        started = self.log.last("begun", "session")
        if started is not None and {key: started[key] for key in what} != json.loads(json.dumps(what)):
            raise ZooError(f"{out} holds a session of another plan or device; give another --out")
        self._what, self._minutes, self._sources = what, minutes, dict[int, Source]()

    # order and time ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what is not done yet.

        :raises Interrupted: stopped from outside
        :raises CheckError: some steps failed; the others are done
        """
        with _alone(self.out), contextlib.chdir(self.out):  # what is kept of a run names no directory of this machine
            if self._minutes is not None or self.log.last("begun", "session") is None:
                minutes = self.plan.minutes if self._minutes is None else self._minutes
                self.log.add("begun", "session", minutes=minutes, **self._what)
            self._step("device", self._about_device)
            self._step("data", self._make_data)
            if self.log.state("data") == "done":
                for job in self.plan.jobs:
                    self._step(f"speed {job.name}", partial(self._measure_speed, job))
                    self._step(f"train {job.name}", partial(self._train, job))
                    self._step(f"release {job.name}", partial(self._release, job))
                for name in largest(registry.read_index(Path(MODELS))):
                    self._step(f"measure {name}", partial(self._measure, name))
        failed = [step for step, state in states(self.log) if state == "failed"]
        if failed:
            raise CheckError(f"failed: {', '.join(failed)}; see {self.out / LOG}; the same command tries again")

    def _step(self, name: str, work: Callable[[], dict[str, Any] | None]) -> None:
        """Do a step that is not done, and put on record how it went; None says that there is nothing to do."""
        if self.log.state(name) == "done":
            return
        print(f"{minutes_left(self.log):6.1f} min left: {name}", flush=True)
        start = time.time()
        try:
            facts = work()
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:  # the other steps are worth as much: they go on
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            self.log.add("failed", name, problem=problem)
            print(f"{name} failed: {problem}", flush=True)
            return
        seconds = round(time.time() - start, 1)
        self.log.add("done" if facts is not None else "left out", name, seconds=seconds, facts=facts)

    def _until(self, job: Job) -> float:
        """When a job ends [s since 1970]: said once, at its first start, and again where the session was given other minutes."""
        name = f"train {job.name}"
        begun, session = self.log.last("begun", name), self.log.last("begun", "session")
        assert session is not None
        if begun is not None and begun["time"] >= session["time"]:
            return float(begun["until"])
        waiting = [
            one
            for one in self.plan.jobs
            if self.log.state(f"train {one.name}") in ("open", "begun", "failed", "left out")
        ]
        waiting = waiting[waiting.index(job) :]
        left = 60 * (minutes_left(self.log) - self.plan.reserve_minutes)
        until = time.time() + max(left, 0.0) * job.share / sum(one.share for one in waiting)
        if self._enough(until):
            self.log.add("begun", name, until=until)
        return until

    def _enough(self, until: float) -> bool:
        return self.rehearse or until - time.time() >= 60 * self.plan.least_minutes

    # steps ---------------------------------------------------------------------------------------------------------------

    def _about_device(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count(), "device": self.device}
        if self.device.startswith("cuda"):
            about = torch.cuda.get_device_properties(self.device)
            facts |= {"device": about.name, "memory_bytes": about.total_memory, "cuda": torch.version.cuda}
        return facts

    def _make_data(self) -> dict[str, Any]:
        """The store. A released one is compared with its manifest; where this device rounds too differently, the CPU makes it."""
        manifest = self.plan.data.load_manifest()
        recipe = parse(load_recipe(str(self.plan.data.recipe))) if manifest is None else manifest.plan.recipe
        if self.rehearse:
            sizes = {"train": 4 * REHEARSED, "val": REHEARSED, "test": REHEARSED}
            recipe = recipe.model_copy(update={**sizes, "name": f"{recipe.name}-rehearsal"})
        if manifest is None or self.rehearse:
            datagen.generate(recipe, STORE, device=self.device)
            return {"name": recipe.label, "made_on": self.device}
        for device in (self.device, "cpu"):
            try:
                _, found = regenerate(manifest, STORE, device=device)
            except datagen.VerificationError:
                if device == "cpu":
                    raise
                continue
            break
        alike = {"identical_shards": found.identical, "shards": found.shards, "relative_error": found.error}
        return {"name": recipe.label, "made_on": device, **alike}

    def _recipe(self, job: Job) -> Recipe:
        """A job's recipe, as it is trained here."""
        changes: dict[str, Any] = {} if job.init is None else {"training.init": f"{RUNS}/{job.init}"}
        if any((event.get("facts") or {}).get("compile_error") for event in self.log.events):
            changes["training.compile"] = False
        if self.rehearse:
            recipe = job.resolved()
            fields = registry.architecture(recipe.architecture).Config.model_fields
            dense = recipe.codec.get("backbone") == "dense"
            sizes = [DENSE] if dense else [size for size in SMALL if size.keys() <= fields.keys()]
            changes |= SHORT | {f"codec.{name}": value for size in sizes for name, value in size.items()}
        return job.resolved(changes)

    def _source(self, job: Job) -> Source:
        if job.seed not in self._sources:
            store = Store(Path(STORE))
            streamed = self.plan.data.train_from == "stream"
            made: Source = (
                Streamed(store.recipe, self.device, job.seed)
                if streamed
                else Cached(store, self.device, None, job.seed)
            )
            self._sources[job.seed] = made
        return self._sources[job.seed]

    def _measure_speed(self, job: Job) -> dict[str, Any] | None:
        if not job.speed:
            return None
        recipe = self._recipe(job)
        free = recipe.model_copy(update={"training": recipe.training.model_copy(update={"init": None})})
        found = training_speed(free, self._source(job), self.device, 0.0 if self.rehearse else SPEED_SECONDS)
        self._keep(f"speed-{job.name}", found)
        return found

    def _train(self, job: Job) -> dict[str, Any] | None:
        if job.init is not None and self.log.state(f"train {job.init}") != "done":
            return None
        until, run = self._until(job), Path(RUNS, job.name)
        if not self._enough(until) and not (run / "checkpoints").is_dir():
            return None
        spent, steps = _spent(run)
        minutes = None if self.rehearse else max((spent + until - time.time()) / 60, 1e-3)
        run.parent.mkdir(exist_ok=True)
        models = train(
            self._recipe(job), self._source(job), run, device=self.device, resume=run.exists(), max_minutes=minutes,
            progress=False, save_seconds=SAVE_SECONDS,
        )  # fmt: skip
        spent, steps = _spent(run)
        return {"models": [model.name for model in models], "steps": steps, "minutes": round(spent / 60, 2)}

    def _release(self, job: Job) -> dict[str, Any] | None:
        trained = self.log.last("done", f"train {job.name}")
        if trained is None:
            return None
        models = [Path(RUNS, job.name, MODELS, name) for name in trained["facts"]["models"]]
        Path(RELEASED).mkdir(exist_ok=True)
        samples = REHEARSED if self.rehearse else self.plan.data.test_samples
        found = release(models, Store(Path(STORE)), Path(RELEASED, job.name), samples, device=self.device)
        chosen = choose(Path(RELEASED), Path(MODELS))
        return {"nmse_db": {one["model"]: score(one) for one in found}, "chosen": chosen}

    def _measure(self, name: str) -> dict[str, Any]:
        """What a model costs and, where it sends symbols, the plan's sweeps and whether anything else reaches its decoder."""
        path, digests = locate(Path(MODELS, name))
        model, store = load_model(path, digests), Store(Path(STORE))
        found: dict[str, Any] = {"model": name, "throughput": self._throughput(path)}
        if isinstance(model, JSCC):
            samples = REHEARSED if self.rehearse else self.plan.leak_samples
            found["leaks"] = [
                leak_check(path, store, samples=samples, k=k, device=self.device) for k in model.config.symbols
            ]
            for sweep in self.plan.sweeps_of(name):
                limit = REHEARSED if self.rehearse else sweep.samples
                found[sweep.name] = evaluate_jscc(path, store, samples=limit, device=self.device, **sweep.options())[
                    "points"
                ]
        self._keep(name, found)
        return {"rows": len(found["throughput"])}

    def _throughput(self, path: Path) -> list[dict[str, Any]]:
        seconds, batch = (0.0, 4) if self.rehearse else (BENCH_SECONDS, self.plan.bench_batch)
        rows = []
        for dtype in DTYPES:
            model = load_model(path, device=self.device, dtype=dtype)
            calls = sorted({model.config.decoding_steps, 1}) if isinstance(model, GDCSI) else [None]
            for steps in calls:
                if steps is not None:
                    model.config = model.config.model_copy(update={"decoding_steps": steps})
                rows.append({"dtype": dtype, "decoding_steps": steps, **bench(model, batch, seconds)})
        return rows

    def _keep(self, name: str, found: dict[str, Any]) -> None:
        Path(MEASURED).mkdir(exist_ok=True)
        put(Path(MEASURED, f"{name}.json"), json.dumps(found, indent=1, allow_nan=False) + "\n")


def _spent(run: Path) -> tuple[float, int]:
    """Seconds and steps of a run's newest checkpoint."""
    found = sorted((run / "checkpoints").glob("step-*"))
    facts = json.loads((found[-1] / "state.json").read_text()) if found else {"elapsed": 0.0, "step": 0}
    return float(facts["elapsed"]), int(facts["step"])


def score(result: dict[str, Any]) -> float:
    """Mean over everything that a model was measured at [dB]."""
    rows = result["points"] if "points" in result else result["side_information"]
    return sum(float(row["nmse_db"]) for row in rows) / len(rows)


def largest(names: Iterable[str]) -> list[str]:
    """Of the models of each family, the one of the highest rate: the others cost as much."""
    by_rate = sorted(names, key=registry.rate_of)
    return sorted({name.rsplit("-", 1)[0]: name for name in by_rate}.values())


def choose(released: Path, into: Path) -> dict[str, str]:
    """Make one collection of several: of the models of one name, the better one.

    :returns: which collection each model is from
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for path in sorted(released.glob("*/*/config.json")):
        measured = results.read(path.parent)
        if measured is not None and not path.parent.name.startswith("."):
            found.setdefault(path.parent.name, []).append((score(measured), path.parent.parent.name))
    best = {name: min(candidates)[1] for name, candidates in found.items()}
    with replacing(into) as draft:
        for name, job in best.items():
            shutil.copytree(released / job / name, draft / name)
            for part in registry.parts(released / job / name):
                shutil.copy(part, draft)
        registry.write_index(draft)
    return best


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """:raises ZooError: another process carries out this session"""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ZooError(f"another process works at {out}; see status") from None
        yield
