"""A sample's place in delay and its energy as fields of a payload, so that networks see samples that are aligned and of one size.

Outdoors the strongest delay wanders over a dozen taps from sample to sample. To tell its place costs five bits at most, and what is left
is far easier to code: the Gaussian bound of samples that are so aligned is some three decibels lower at 128 bits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

HOME = 4  # the strongest delay of an aligned sample is at this part of the delays, one in four: most of what there is follows it


class Framing(NamedTuple):
    """What a payload's first fields say of n samples."""

    place: Tensor | None  # the strongest delay, int64 [n]; None where it is not coded
    level: Tensor | None  # root of the mean power of a cell, [n]; None where it is not coded


class Frame(nn.Module):
    """Codes of place and energy, and samples with and without them. Samples are images, real [n, 2 (re, im), angle, delay].

    :param delays: of a sample
    :param align: whether the strongest delay is coded, and moved to one place
    :param energy_bits: of the energy, on a logarithmic scale; 0 leaves it as it is
    """

    levels: Tensor  # least and largest coded log2 of a sample's level, [2]

    def __init__(self, delays: int, align: bool, energy_bits: int) -> None:
        super().__init__()
        self.delays, self.align, self.energy_bits = delays, align, energy_bits
        if energy_bits:
            self.register_buffer("levels", torch.tensor([-1.0, 1.0]))

    @property
    def widths(self) -> tuple[int, ...]:
        """State the bits of the fields, in order."""
        return frame_widths(self.delays, self.align, self.energy_bits)

    def prepare(self, x: Tensor) -> None:
        """Fit the range of energies to training samples."""
        if self.energy_bits:
            level = level_of(x).log2()
            ends = torch.tensor([0.001, 0.999], dtype=torch.float64, device=x.device)
            self.levels.copy_(torch.quantile(level[level.isfinite()].double(), ends))

    def codes(self, x: Tensor) -> Tensor:
        """Code place and energy: int64 [n, fields]. Energies beyond the range take the nearest code, and of equal delays the first is taken."""
        columns = [strongest(x)] if self.align else []
        if self.energy_bits:
            low, high = self.levels.float()
            steps = 2**self.energy_bits
            share = (level_of(x).log2() - low) / (high - low).clamp(min=1e-6)
            columns.append((share * steps).floor().clamp(0, steps - 1).long())
        return torch.stack(columns, 1) if columns else torch.zeros(len(x), 0, dtype=torch.int64, device=x.device)

    def read(self, codes: Tensor) -> Framing:
        """Read what codes of :meth:`codes` stand for."""
        place = codes[:, 0] if self.align else None
        if not self.energy_bits:
            return Framing(place, None)
        low, high = self.levels.float()
        share = (codes[:, -1] + 0.5) / 2**self.energy_bits
        return Framing(place, torch.exp2(low + share * (high - low)))

    def strip(self, x: Tensor, framing: Framing) -> Tensor:
        """Align samples, and divide them by their level."""
        if framing.level is not None:
            x = x / framing.level[:, None, None, None]
        return self.aligned(x, framing)

    def aligned(self, x: Tensor, framing: Framing) -> Tensor:
        """Align alone, as side information is."""
        return x if framing.place is None else rolled(x, self.delays // HOME - framing.place)

    def put_back(self, x: Tensor, framing: Framing) -> Tensor:
        """Undo :meth:`strip`."""
        if framing.level is not None:
            x = x * framing.level[:, None, None, None]
        return x if framing.place is None else rolled(x, framing.place - self.delays // HOME)


def frame_widths(delays: int, align: bool, energy_bits: int) -> tuple[int, ...]:
    """State the bits of the fields of a frame, in order."""
    return (*(((delays - 1).bit_length(),) if align else ()), *((energy_bits,) if energy_bits else ()))


def rolled(image: Tensor, delays: Tensor) -> Tensor:
    """Move images [n, c, angle, delay] by some delays each, [n]; what leaves at one end enters at the other."""
    source = (torch.arange(image.shape[3], device=image.device) - delays[:, None]) % image.shape[3]
    return image.gather(3, source[:, None, None].expand_as(image))


def strongest(image: Tensor) -> Tensor:
    """Find the delay of most energy of each image, the first of several: int64 [n]."""
    return image.float().square().sum((1, 2)).argmax(1)


def level_of(x: Tensor) -> Tensor:
    """Measure the root of the mean power of a cell of each image, [n], single precision."""
    return (x.float().square().sum((1, 2, 3)) / (x.shape[2] * x.shape[3])).sqrt()
