"""What a session on a GPU is to do: data, jobs, measurements, minutes. A plan is a short TOML file in ``plans/``."""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from datagen.manifest import Manifest
from zoo import config
from zoo.errors import ZooError
from zoo.evaluate_jscc import SNRS_DB
from zoo.models.base import Network
from zoo.registry import architecture

PLANS = Path(__file__).parent / "plans"
MANIFESTS = Path(__file__).parents[1] / "manifests/datasets"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Part):
    """Samples of a data set."""

    manifest: str | None = Field(None, description="name in manifests/datasets")
    recipe: str | None = Field(None, description="in its place: TOML file of a datagen recipe, relative to the plan's")
    train_from: Literal["store", "stream"] = Field(
        "store", description="the train split, or samples of its law that are drawn on the device and used once each"
    )
    test_samples: int = Field(20_000, ge=2, description="of the test split, that results are of")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.manifest is None) == (self.recipe is None):
            raise ValueError("give one of manifest and recipe")
        return self

    def load_manifest(self) -> Manifest | None:
        """The manifest, where samples are of a released set.

        :raises DatagenError: there is none of this name
        """
        return None if self.manifest is None else Manifest.load(MANIFESTS / f"{self.manifest}.json")


class Job(_Part):
    """One run of training."""

    name: str = Field(pattern=config.NAME)
    recipe: str = Field(description="of zoo/recipes")
    family: str | None = Field(None, pattern=config.NAME, description="of the models, in place of the recipe's")
    share: float = Field(gt=0, description="of the minutes for training, over the sum of all jobs' shares")
    init: str | None = Field(None, description="earlier job whose weights it starts from")
    seed: int = Field(0, ge=0)
    speed: bool = Field(True, description="measure it beside a plain loop first, which takes some compiling")
    set: dict[str, Any] = Field(default_factory=dict, description="values of the recipe by dotted key")

    def resolved(self, changes: dict[str, Any] | None = None) -> config.Recipe:
        """The recipe of this job.

        :param changes: beyond its own
        :raises ZooError: there is no such recipe or key
        """
        fixed = {"training.seed": self.seed} | ({} if self.family is None else {"family": self.family})
        return config.load(self.recipe, {**fixed, **self.set, **(changes or {})})


def _none(value: Any) -> Any:
    return [None if one == "none" else one for one in value] if isinstance(value, list) else value


class Sweep(_Part):
    """What models that send symbols are measured at, besides what every release measures."""

    name: str = Field(pattern=config.NAME)
    models: str = Field("*", description="shell pattern of their names")
    symbols: tuple[int, ...] = ()
    snr_db: tuple[float, ...] = SNRS_DB
    steps: tuple[int | Literal["auto"], ...] = ()
    bits: Annotated[tuple[int | None, ...], BeforeValidator(_none)] = (None,)
    cnr_db: Annotated[tuple[float | None, ...], BeforeValidator(_none)] = (None,)
    downlink_snr_db: float | None = None
    samples: int | None = Field(None, ge=2, description="the first so many of the test split; all if not given")

    def options(self) -> dict[str, Any]:
        """As :func:`zoo.evaluate_jscc.evaluate_jscc` takes them."""
        return self.model_dump(exclude={"name", "models", "samples"})


class Plan(_Part):
    """A session."""

    minutes: float = Field(gt=0, description="in all")
    reserve_minutes: float = Field(5.0, ge=0, description="of them, for what comes after training")
    least_minutes: float = Field(0.5, ge=0, description="a job that has fewer is left out")
    data: Data
    jobs: tuple[Job, ...] = Field(min_length=1)
    sweeps: tuple[Sweep, ...] = ()
    leak_samples: int = Field(2000, ge=2, description="that the information check of models that send symbols is of")
    bench_batch: int = Field(1000, ge=1, description="samples a call, where throughput is measured")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        before: set[str] = set()
        for job in self.jobs:
            if job.name in before:
                raise ValueError(f"two jobs are named {job.name}")
            if job.init is not None and job.init not in before:
                raise ValueError(f"job {job.name}: init = {job.init!r} is no job before it")
            before.add(job.name)
        return self

    def sweeps_of(self, model: str) -> list[Sweep]:
        """Those that a model takes part in."""
        return [sweep for sweep in self.sweeps if fnmatch.fnmatch(model, sweep.models)]


def names() -> list[str]:
    """Plans that lie here."""
    return sorted(path.stem for path in PLANS.glob("*.toml"))


def load(plan: str | Path) -> Plan:
    """A plan by name or file.

    :raises ZooError: there is none, it is not of this form, or a job's recipe cannot be trained
    """
    path = Path(plan) if str(plan).endswith(".toml") else PLANS / f"{plan}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ZooError(f"unknown plan {str(plan)!r}; there are {', '.join(names())}, or give a .toml file") from None
    except OSError as error:
        raise ZooError(f"cannot read the plan {plan}: {error.strerror}") from None
    except ValueError as error:
        raise ZooError(f"{plan} is not TOML: {error}") from None
    try:
        found = Plan.model_validate(table)
    except ValidationError as error:
        raise ZooError(f"plan {plan}: {config.explain(error, Plan)}") from None
    if found.data.recipe is not None:
        data = found.data.model_copy(update={"recipe": str((path.parent / found.data.recipe).resolve())})
        found = found.model_copy(update={"data": data})
    for job in found.jobs:
        if not issubclass(architecture(job.resolved().architecture), Network):
            raise ZooError(f"plan {plan}: job {job.name}: {job.recipe} is fitted in closed form, not trained")
    return found
