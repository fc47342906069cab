"""What samples a model is made for look like: with it, a later check can tell samples of another unit, transposed, mirrored or shifted ones.

It stands in a model's ``config.json`` under ``input``. Models from before it have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from zoo.config import explain
from zoo.errors import ZooError
from zoo.registry import CONFIG_FILE

if TYPE_CHECKING:
    from zoo.data import Source

SAMPLES = 8192  # of the train split that are measured, at most
KEY = "input"  # in a model's config
QUANTILES = ("0.01", "0.05", "0.5", "0.95", "0.99")
TAPS = ("1", "4", "8", "16")
DIGITS = 6  # of each number
SLACK = 1e-3  # that sums may miss by: the numbers are rounded


class InputStatistics(BaseModel):
    """Of samples that have any energy; a share is of a sample's energy, and each sample counts alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    samples: int = Field(ge=1, description="that were measured")
    without_energy: int = Field(0, ge=0, description="samples of zeros alone, left out")
    energy_quantiles: dict[Literal["0.01", "0.05", "0.5", "0.95", "0.99"], float] = Field(
        description="of a sample's squared norm, physical units"
    )
    delay_profile: tuple[float, ...] = Field(min_length=1, description="mean share at each delay")
    angle_profile: tuple[float, ...] = Field(min_length=1, description="mean share at each angle")
    first_taps_share: dict[Literal["1", "4", "8", "16"], float] = Field(
        description="mean share of so many first delays"
    )

    @model_validator(mode="after")
    def _is_of_samples(self) -> Self:
        levels = [self.energy_quantiles.get(key, 0.0) for key in QUANTILES]  # type: ignore[call-overload]
        if not (levels[0] > 0 and levels == sorted(levels)):
            raise ValueError(f"energy_quantiles must be positive and rise, at {', '.join(QUANTILES)}")
        for name in ("delay_profile", "angle_profile"):
            profile = getattr(self, name)
            if min(profile) < 0 or abs(sum(profile) - 1) > SLACK:
                raise ValueError(f"{name} must hold shares that are 1 together")
        wanted = {key: sum(self.delay_profile[: int(key)]) for key in TAPS}
        if any(abs(self.first_taps_share.get(key, -1.0) - wanted[key]) > SLACK for key in TAPS):  # type: ignore[call-overload]
            raise ValueError(f"first_taps_share must be the sums of delay_profile, at {', '.join(TAPS)}")
        return self


class ModelInput(InputStatistics):
    """Of X, and of Y where the model takes it: as the data set has it, without the noise of training."""

    side_information: InputStatistics | None = None


def measure(x: Tensor | NDArray[np.complexfloating]) -> InputStatistics:
    """Statistics of samples.

    :param x: physical values, complex [n, angle, delay]
    :raises ZooError: they are of another shape or type, not finite, or all zero
    """
    values = torch.as_tensor(x).cpu()
    if values.ndim != 3 or not values.is_complex():
        raise ZooError(f"samples are {values.dtype} {list(values.shape)}; they must be complex [n, angle, delay]")
    power = torch.view_as_real(values.resolve_conj()).double().square().sum(-1).numpy()
    energy = power.sum((1, 2))
    if not np.isfinite(energy).all():
        raise ZooError("samples hold values that are not finite; see datagen verify")
    there = energy > 0
    if not there.any():
        raise ZooError("no sample has any energy; see datagen inspect")
    shares = (power[there] / energy[there, None, None]).mean(0)
    delays, quantiles = shares.sum(0), np.quantile(energy[there], [float(key) for key in QUANTILES])
    return InputStatistics.model_validate(
        {
            "samples": int(there.sum()), "without_energy": int((~there).sum()),
            "energy_quantiles": dict(zip(QUANTILES, _rounded(quantiles), strict=True)),
            "delay_profile": _rounded(delays), "angle_profile": _rounded(shares.sum(1)),
            "first_taps_share": dict(zip(TAPS, _rounded([delays[: int(key)].sum() for key in TAPS]), strict=True)),
        }
    )  # fmt: skip


def of_training(source: Source, takes_y: bool) -> ModelInput:
    """Statistics of the first :data:`SAMPLES` training samples.

    :param takes_y: measure the side information too
    :raises ZooError: samples that are not finite, or all zero
    """
    batches = list(source.once(SAMPLES))
    x = measure(torch.cat([batch.x.cpu() for batch in batches]))
    y = measure(torch.cat([batch.y.cpu() for batch in batches if batch.y is not None])) if takes_y else None
    return ModelInput(**dict(x), side_information=y)


def record(statistics: ModelInput) -> dict[str, Any]:
    """What a model's config holds under :data:`KEY`, JSON-ready."""
    return statistics.model_dump(mode="json", exclude_none=True)


def read(config: Mapping[str, Any], path: Path, shape: tuple[int, int], takes_y: bool) -> ModelInput | None:
    """Statistics in a model's config, or None where it is older than they are.

    :param path: of the model's directory, for messages
    :param shape: of the model's samples, [angles, delays]
    :param takes_y: whether the model takes side information
    :raises ZooError: they are malformed, or not of such samples
    """
    if KEY not in config:
        return None
    source = f"{path / CONFIG_FILE}: {KEY}"
    try:
        found = ModelInput.model_validate_json(json.dumps(config[KEY]))
    except ValidationError as error:
        raise ZooError(f"{source}: {explain(error, ModelInput)}") from None
    if (found.side_information is not None) != takes_y:
        raise ZooError(f"{source}: side_information must be there where the model takes it, and nowhere else")
    for one in filter(None, (found, found.side_information)):
        if (len(one.angle_profile), len(one.delay_profile)) != shape:
            held = f"{len(one.angle_profile)} angles and {len(one.delay_profile)} delays"
            raise ZooError(f"{source}: profiles of {held}; the model's samples have {shape[0]} and {shape[1]}")
    return found


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
