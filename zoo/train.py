"""The training loop, on one page: one process, or several under torchrun.

Everything random is a function of (seed, step), and so is the order of the samples: a run that was stopped and resumed ends with the
very weights of one that was not. With a time budget the learning rate follows the clock instead, and that no longer holds.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from zoo import checkpoint, input_statistics, metrics
from zoo.config import Recipe, Training, explain
from zoo.data import Batch, Source, noisy
from zoo.devices import fast_products, half_is_faster, local_device
from zoo.errors import Interrupted, ZooError
from zoo.models.base import Fitted, Model, MultiRateConfig, Network
from zoo.parts import share
from zoo.registry import architecture, model_name

FINISH_SAMPLES = 2048  # of the val split, that a network is finished on
LOG_STEPS = 50  # between lines of the log
SAVE_SECONDS = 300.0  # between checkpoints
CHECKS = 20  # validations in a run
AVERAGE_STEPS = 5  # between averages of the weights, after the first
STEADY = 100  # steps, after each of which they are averaged
TEND_STEPS = 100  # between a codec's mending of what gradients do not reach
TENDED = 0.7  # share of a run in which it does
FIT_SAMPLES = 4096  # that the scale, and what else a network starts from, is fitted on


def train(
    recipe: Recipe, source: Source, run: Path, *, device: str = "cpu", resume: bool = False, max_minutes: float | None = None,
    progress: bool = True, save_seconds: float = SAVE_SECONDS,
) -> list[Path]:  # fmt: skip
    """Train (or fit in closed form) and export.

    A run directory holds ``recipe.json``, ``log.jsonl``, ``checkpoints/step-N/`` (averaged weights and training state apart) and at
    the end ``models/<name>/``, one model a rate. A family of two stages has the run of its first in ``first/``.

    :param source: of the samples
    :param run: directory; must not exist, unless ``resume``
    :param device: ``cpu`` or ``cuda``; under torchrun every process takes the GPU of its local rank
    :param max_minutes: fit the learning rate's decay to this time and stop when it is over
    :param save_seconds: between checkpoints, which is what a run that is killed may lose
    :returns: directories of the models
    :raises ZooError: the recipe does not fit the data, the run exists, or the loss is not finite
    :raises Interrupted: stopped by SIGINT or SIGTERM; a checkpoint was written
    """
    with _processes(device) as (rank, world, device):
        place = Place(rank, world, device, resume, progress and rank == 0, save_seconds)
        return _train(recipe, source, run, place, max_minutes)[1]


class Place(NamedTuple):
    """Which process this is, and how it goes on."""

    rank: int
    world: int
    device: str
    resume: bool
    progress: bool
    save_seconds: float = SAVE_SECONDS


def _train(
    recipe: Recipe, source: Source, run: Path, place: Place, max_minutes: float | None
) -> tuple[Model[Any], list[Path]]:
    """Train one stage, after the one before it, and export: the model, and the directories that it is shipped in."""
    codec, trainer, stage, minutes = build(recipe, source), None, first_stage(recipe), None
    if stage is not None and not issubclass(architecture(stage.architecture), Fitted):
        source.batches(0, stage.training.batch)  # refuses a batch that the data cannot fill, before anything is written
        if max_minutes is not None:  # each stage has the time that its steps take of all
            minutes = max_minutes * stage.training.steps / (stage.training.steps + recipe.training.steps)
            max_minutes -= minutes
    if isinstance(codec, Network):
        trainer = Trainer(codec.to(place.device), recipe.training, source, run, place, max_minutes)
    record = {
        "dataset": source.record(), "side_information_snr_db": recipe.training.side_information_snr_db,
        "recipe": recipe.record(), "trained_with": _versions(place.device, place.world),
    }  # fmt: skip
    if place.rank == 0:
        _open_run(run, recipe, record, place.resume)
    if trainer is not None:
        if stage is not None and not (place.resume and checkpoint.load_state(run)):
            before, _ = _train(stage, source, run / "first", place, minutes)
            trainer.start_from(before.state_dict())
        codec = trainer.run(place.resume)
        codec.finish(source.validation(FINISH_SAMPLES).x.to(place.device))
        record["trained_with"] = {**_versions(place.device, place.world), "precision": trainer.precision}
        record |= {"steps": trainer.step, "minutes": round(trainer.elapsed / 60, 1)}
    codec = codec.to("cpu")
    return codec, export(codec, recipe, source, record, run / "models") if place.rank == 0 else []


def first_stage(recipe: Recipe) -> Recipe | None:
    """The recipe of what is trained before a model of two stages: the same codec, as far as it goes. None where there is nothing, or
    where ``training.init`` gives it.

    :raises ZooError: the recipe has a first stage, the architecture has none
    """
    kind = architecture(recipe.architecture)
    first = kind.first_of(recipe.codec) if issubclass(kind, Network) else None
    if first is None:
        if recipe.first is not None:
            raise ZooError(f"recipe {recipe.family}: first: {recipe.architecture} is trained in one stage")
        return None
    if recipe.training.init is not None:
        return None
    shared = architecture(first).Config.model_fields
    return Recipe(
        family=first if issubclass(architecture(first), Fitted) else f"{recipe.family}-ae", architecture=first, training=recipe.first or Training(),
        codec={name: value for name, value in recipe.codec.items() if name in shared},
    )  # fmt: skip


def build(recipe: Recipe, source: Source) -> Model[Any]:
    """An untrained network with the sizes that recipe and data ask for, or a codec fitted in closed form.

    :raises ZooError: the recipe does not fit the data
    """
    kind, dataset = architecture(recipe.architecture), source.dataset
    fields = {
        "angles": dataset.shape[0],
        "delays": dataset.shape[1],
        **{
            name: value
            for name, value in (("side_information", dataset.side_information), ("target", dataset.target))
            if name in kind.Config.model_fields
        },
        **recipe.codec,
    }
    if fields.get("side_information") and not dataset.side_information:
        raise ZooError(f"{dataset.name} has no side information; use --set codec.side_information=false")
    if issubclass(kind, Fitted):
        return kind.from_source(source, recipe.training, fields)
    assert issubclass(kind, Network)
    try:
        config = kind.Config.model_validate({**fields, **kind.settled(fields, source, recipe.training)})
    except ValidationError as error:
        raise ZooError(f"recipe {recipe.family}: codec: {explain(error, kind.Config)}") from None
    torch.manual_seed(recipe.training.seed)
    codec = kind(config)
    codec.prepare(next(source.once(FIT_SAMPLES)).x.cpu())
    if recipe.training.init is not None:
        _start_from(codec, recipe.training.init)
    else:
        codec.know(source)
    return codec


def _start_from(codec: Network[Any], init: str) -> None:
    states = sorted(Path(init, "checkpoints").glob("step-*"))
    weights = (
        checkpoint.read_tensors(states[-1] / "weights.safetensors") if states else checkpoint.load(init).state_dict()
    )
    try:
        codec.start_from(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip()
        raise ZooError(f"training.init {init} has other weights than this recipe: {detail}") from None


def export(
    codec: Model[Any], recipe: Recipe, source: Source, record: dict[str, Any], out: Path, dtype: str = "float32"
) -> list[Path]:
    """Write a model's directory for every rate that a codec serves, with golden vectors of the first validation samples.

    What the rates share is stored once.
    """
    vectors = source.validation(checkpoint.VECTORS)
    samples = {"x": vectors.x.cpu()} | ({} if vectors.y is None else {"y": vectors.y.cpu()})
    made_for = input_statistics.of_training(source, codec.takes_y)
    record = {**_without_places(record), input_statistics.KEY: input_statistics.record(made_for)}
    paths = []
    for single in codec.singles():
        name = model_name(recipe.family, source.dataset.scenario, single.label(single.config.model_dump()))
        checkpoint.save_model(
            out / name, single, {"name": name, "architecture": recipe.architecture, **record}, samples, dtype
        )
        paths.append(out / name)
    share(paths)
    return paths


def _without_places(record: dict[str, Any]) -> dict[str, Any]:
    """A record that may be published: of a run or model that training started from, the name, and not where it lay."""
    training = record.get("recipe", {}).get("training", {})
    if not Path(training.get("init") or "").is_absolute():
        return record
    named = {**training, "init": Path(training["init"]).name}
    return {**record, "recipe": {**record["recipe"], "training": named}}


class _Objective(nn.Module):
    """A codec's loss as a module, which is what DDP and torch.compile wrap."""

    def __init__(self, codec: Network[Any]) -> None:
        super().__init__()
        self.codec = codec

    def forward(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self.codec.loss(x, y, z, draws)


class Trainer:
    """One training run; nothing is written before :meth:`run`."""

    def __init__(
        self, codec: Network[Any], training: Training, source: Source, run: Path, place: Place, max_minutes: float | None
    ) -> None:  # fmt: skip
        if training.batch % place.world:
            raise ZooError(f"training.batch {training.batch} is no multiple of the {place.world} processes")
        rates = len(codec.config.shared) if isinstance(codec.config, MultiRateConfig) else 1
        if training.batch < rates * place.world:
            raise ZooError(
                f"training.batch {training.batch} leaves some of the {rates} rates without a sample; set it higher"
            )
        source.batches(0, training.batch)  # refuses a batch that the data cannot fill
        self.codec = codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.codec).eval().requires_grad_(False)  # moving average of weights: what is kept
        self.training, self.source, self.out, self.rank, self.world = training, source, run, place.rank, place.world
        self.budget = None if max_minutes is None else 60 * max_minutes
        self.progress, self.device, self.save_seconds = place.progress, codec.device, place.save_seconds
        self.cuda = self.device.type == "cuda"
        self.parameters = {name: weight for name, weight in codec.named_parameters() if weight.requires_grad}
        self.optimizer = torch.optim.AdamW(
            _groups(codec), lr=training.learning_rate, betas=(0.9, training.second_moment_decay), weight_decay=training.weight_decay,
            fused=True,
        )  # fmt: skip
        self.step, self.elapsed, self.validated, self.validating = 0, 0.0, 0, 0.0

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of the stage before."""
        for codec in (self.codec, self.average):
            codec.start_from(weights)
            if self.world > 1:  # moments of normalisation are each process's own
                _of_the_first(codec)

    def objective(self) -> nn.Module:
        """The loss as it is trained: compiled, and shared by all processes."""
        objective: nn.Module = _Objective(self.codec)
        if self.training.compile if self.training.compile is not None else self.cuda:
            objective = torch.compile(objective)  # type: ignore[assignment]
        if self.world > 1:
            _of_the_first(self.codec)  # DDP would not take every type of buffer
            ids = [self.device.index] if self.cuda else None
            objective = nn.parallel.DistributedDataParallel(
                objective, device_ids=ids, broadcast_buffers=False, init_sync=False
            )
        return objective

    def run(self, resume: bool) -> Network[Any]:
        """Train to the end and return the averaged codec."""
        if resume:
            self._restore()
        objective = self.objective()
        if self._done() < 1:
            self.source.observe(self.average.observe, self.progress)
        batches = self.source.batches(self.step, self.training.batch)
        generator = torch.Generator(self.device)
        saved = shown = time.perf_counter()
        start, first = saved - self.elapsed, self.step
        bar = self._bar()
        facts: dict[str, Any] = {}
        self.codec.train()
        with _stop_signals() as stopped:
            while True:
                self.elapsed = time.perf_counter() - start
                done, stop = self._agree(self._done(), bool(stopped))
                if done >= 1 or stop:
                    break
                loss, logs = self.update(objective, next(batches), generator, done)
                if self.step % LOG_STEPS == 0 or self.step == first + 1:
                    facts = self._log(loss, logs, done, time.perf_counter() - shown, bar)
                    shown = time.perf_counter()
                reached = int(self._done() * CHECKS)
                if self.rank == 0 and reached > self.validated and (reached == CHECKS or self._affordable()):
                    self.validated = reached
                    self._write({"step": self.step, "val_nmse_db": self._validate()})
                if time.perf_counter() - saved > self.save_seconds:
                    self._save()
                    saved = time.perf_counter()
        batches.close() if hasattr(batches, "close") else None
        bar.close()
        self._save()
        if stop:
            raise Interrupted(
                f"stopped at step {self.step}; the same command with --resume goes on" if facts else "stopped"
            )
        return self.average

    def update(
        self, objective: nn.Module, batch: Batch, generator: torch.Generator, done: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One step of the optimiser.

        :param objective: of :meth:`objective`
        :param generator: on the codec's device, seeded anew here
        :param done: share of the run that is over
        :returns: loss, and what the codec has to say of it
        """
        generator.manual_seed((self.training.seed << 32) + self.step)
        y = side_information(self.codec, batch, self.training, generator)
        draws = draws_and_notes(self.codec, self.source, batch, self.step, generator)
        mine = slice(self.rank * len(batch.x) // self.world, (self.rank + 1) * len(batch.x) // self.world)
        x, z, y = (None if array is None else self.codec.to_image(array[mine]) for array in (batch.x, batch.z, y))
        for group in self.optimizer.param_groups:
            group["lr"] = group["pace"] * learning_rate(self.training, self.step, done)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss, logs = objective(x, y, z, {name: value[mine] for name, value in draws.items()})
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.codec.parameters(), self.training.clip, foreach=True)
        self.optimizer.step()
        if self.step % TEND_STEPS == TEND_STEPS - 1 and done < TENDED:
            self._tend(generator)  # by what this very step has seen, so that nothing of it need outlive a stop
        self.step += 1
        every = 1 if self.step <= STEADY else AVERAGE_STEPS
        if self.step % every == 0:
            self._average(every)
        return loss.detach(), logs

    def _average(self, steps: int) -> None:
        """Move the averaged weights towards the present ones, as far as so many steps would, one by one."""
        decay = min(self.training.ema, (1 + self.step) / (10 + self.step)) ** steps
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.codec.parameters()), 1 - decay)
            for kept, fresh in zip(self.average.buffers(), self.codec.buffers(), strict=True):
                kept.copy_(fresh)

    def _tend(self, generator: torch.Generator) -> None:
        """What the codec mends by itself is the same in all processes: that of the first."""
        self.codec.tend(generator)
        if self.world > 1:
            _of_the_first(self.codec)

    @functools.cached_property
    def precision(self) -> str:
        """Type that matrices are multiplied in, ``float32`` or ``bfloat16``: all processes go by the first one's trial."""
        asked = self.training.precision
        if asked not in ("auto", "fastest"):
            return asked
        half = torch.tensor(float(self.cuda or (asked == "fastest" and half_is_faster())), device=self.device)
        if self.world > 1:
            torch.distributed.broadcast(half, 0)
        return "bfloat16" if half else "float32"

    def _done(self) -> float:
        """Share of the run that is over."""
        clock = 0.0 if self.budget is None else self.elapsed / self.budget
        return max(self.step / self.training.steps, clock)

    def _affordable(self) -> bool:
        """Whether another validation leaves nine tenths of a time budget to training."""
        return self.budget is None or self.validating < 0.1 * self.elapsed

    def _agree(self, done: float, stop: bool) -> tuple[float, bool]:
        """All processes go by the first one's clock, and stop when any is told to."""
        if self.world == 1:
            return done, stop
        clock, halt = torch.tensor([done], device=self.device), torch.tensor([float(stop)], device=self.device)
        torch.distributed.broadcast(clock, 0)
        torch.distributed.all_reduce(halt, torch.distributed.ReduceOp.MAX)
        return clock.item(), bool(halt.item())

    # log, validation, checkpoints ----------------------------------------------------------------------------------------

    def _bar(self) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=self.training.steps,
            initial=self.step,
            unit="step",
            disable=not self.progress,
            file=sys.stderr,
            smoothing=0.05,
        )

    def _log(self, loss: Tensor, logs: dict[str, Tensor], done: float, seconds: float, bar: Any) -> dict[str, Any]:
        value = loss.item()
        if not math.isfinite(value):
            raise ZooError(f"the loss is {value} at step {self.step}; lower training.learning_rate")
        steps = self.step - bar.n
        left = (1 - done) / done * self.elapsed if done > 0 else None
        facts = {
            "step": self.step, "loss": value, **{name: scalar.item() for name, scalar in logs.items()},
            "learning_rate": self.optimizer.param_groups[0]["lr"], "steps_per_second": steps / seconds, "seconds": self.elapsed,
            "seconds_left": left,
        }  # fmt: skip
        self._write(facts)
        bar.set_postfix_str(
            f"loss {value:.4f}" + ("" if left is None else f", {left / 60:.0f} min left"), refresh=False
        )
        bar.n = self.step
        bar.refresh()
        return facts

    def _validate(self) -> float:
        """NMSE of the averaged weights on the val split, by real payloads or symbols over a link [dB]."""
        began = time.perf_counter()
        batch = self.source.validation(self.training.validation_samples)
        generator = torch.Generator(self.device).manual_seed(0)
        y = side_information(self.codec, batch, self.training, generator)
        estimate, rate = self.average.trial(batch.x, y)
        self.validating += time.perf_counter() - began
        nmse_db = metrics.nmse_db(getattr(batch, self.average.target).cpu().numpy(), estimate.cpu().numpy())
        if self.progress:
            from tqdm import tqdm

            tqdm.write(f"step {self.step}: NMSE {nmse_db:.2f} dB at {rate}, validation", file=sys.stderr)
        return nmse_db

    def _write(self, facts: dict[str, Any]) -> None:
        if self.rank == 0:
            with (self.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(facts) + "\n")

    def _save(self) -> None:
        if self.rank:
            return
        tensors = {f"codec/{name}": value for name, value in self.codec.state_dict().items()}
        for name, parameter in self.parameters.items():
            tensors |= {f"adam/{name}/{slot}": value for slot, value in self.optimizer.state[parameter].items()}
        tensors |= {f"buffer/{name}": value for name, value in self._states().items()}
        facts = {"elapsed": self.elapsed, "validated": self.validated, "precision": self.precision}
        checkpoint.save_state(self.out, self.step, self.average.state_dict(), tensors, facts)

    def _states(self) -> dict[str, Tensor]:
        """Buffers that training needs and no model ships."""
        shipped = self.codec.state_dict()
        return {name: value for name, value in self.codec.named_buffers() if name not in shipped}

    def _restore(self) -> None:
        found = checkpoint.load_state(self.out)
        if found is None:
            return
        weights, tensors, facts = found
        self.step, self.elapsed, self.validated = facts["step"], facts["elapsed"], facts["validated"]
        self.precision = facts.get("precision", self.precision)
        for name, value in self._states().items():
            if f"buffer/{name}" in tensors:
                value.copy_(tensors[f"buffer/{name}"])
        self.average.load_state_dict(weights)
        self.codec.load_state_dict({name[6:]: value for name, value in tensors.items() if name.startswith("codec/")})
        for name, parameter in self.parameters.items():  # in its own memory layout, which the fused optimiser goes by
            self.optimizer.state[parameter] = {
                key.rsplit("/", 1)[1]: torch.empty_like(parameter).copy_(value) if value.ndim else value.to(self.device)
                for key, value in tensors.items()
                if key.startswith(f"adam/{name}/")
            }


def draws_and_notes(
    codec: Network[Any], source: Source, batch: Batch, step: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """What a loss needs beside the samples of a step: its random numbers, and what is noted of the very samples."""
    notes = source.notes(step, len(batch.x))
    if notes is None:
        notes = codec.observe(batch.x, step * len(batch.x))
    return codec.draws(len(batch.x), generator) | notes


def _of_the_first(codec: nn.Module) -> None:
    """Take the weights and buffers of the first process."""
    for value in codec.state_dict().values():
        wide = value.int() if value.dtype == torch.int16 else value  # which no backend sends
        torch.distributed.broadcast(wide, 0)
        if wide is not value:
            value.copy_(wide)


def side_information(
    codec: Network[Any], batch: Batch, training: Training, generator: torch.Generator
) -> Tensor | None:
    """Y as a receiver measures it; None where the model takes none."""
    if batch.y is None or not codec.takes_y:
        return None
    return noisy(batch.y, training.side_information_snr_db, generator)


def _groups(codec: nn.Module) -> list[dict[str, Any]]:
    """Parameters by the pace of the module that they belong to, which is 1 unless it says otherwise."""
    groups: dict[float, list[nn.Parameter]] = {}
    for module in codec.modules():
        groups.setdefault(getattr(module, "pace", 1.0), []).extend(
            weight for weight in module.parameters(recurse=False) if weight.requires_grad
        )
    return [{"params": parameters, "pace": pace} for pace, parameters in groups.items() if parameters]


def learning_rate(training: Training, step: int, done: float) -> float:
    """Linear warm-up by steps, then a cosine over the share of the run that is over."""
    rise = min(1.0, (step + 1) / (training.warmup_steps + 1))
    low = training.final_learning_rate
    return rise * (low + (training.learning_rate - low) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _open_run(run: Path, recipe: Recipe, record: dict[str, Any], resume: bool) -> None:
    """Make a run's directory, or see that the one there is of the same recipe and data."""
    kept = run / "recipe.json"
    facts = {"recipe": recipe.record(), "dataset": record["dataset"]}
    if kept.is_file():
        if not resume:
            raise ZooError(f"{run} holds a run already; give --resume to go on with it, or another --out")
        if json.loads(kept.read_text()) != facts:
            raise ZooError(f"{run} is a run of another recipe or data set; give those of {kept}, or another --out")
        return
    if run.exists() and any(run.iterdir()):
        raise ZooError(f"{run} exists and is no run; give another --out")
    try:
        run.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(facts, indent=1) + "\n")
    except OSError as error:
        raise ZooError(f"cannot write {run}: {error.strerror}") from None


def _versions(device: str, world: int) -> dict[str, Any]:
    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    return {"torch": torch.__version__, "device": name, "processes": world}


@contextlib.contextmanager
def _processes(device: str) -> Iterator[tuple[int, int, str]]:
    """Rank, number of processes and device: of this process alone, or of a group started by torchrun."""
    device = local_device(device)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        with fast_products(device):
            yield 0, 1, device
        return
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        with fast_products(device):
            yield torch.distributed.get_rank(), torch.distributed.get_world_size(), device
    finally:
        torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a step is never cut in half."""
    got: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: got.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
