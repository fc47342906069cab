"""What a feedback link does to symbols, as training and evaluation see it.

This is the one place that knows the link. A model is given another by setting its ``link``.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

ANTENNAS = 32  # of the base station


class Link(Protocol):
    """From the symbols sent to those after combining, which add noise to them: s^ = s + e, e independent of s."""

    def __call__(self, symbols: Tensor, snr_db: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """
        :param symbols: of unit average power, complex [n, k]
        :param snr_db: at each antenna, [n]
        :param generator: of fading and noise, on the device of the symbols
        :returns: complex [n, k]
        """


def rayleigh(symbols: Tensor, snr_db: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Rayleigh fading, fresh for each symbol, to 32 antennas with maximal ratio combining: s + n / ||h||.

    Entries of h have unit power, so the SNR after combining is about 15 dB above ``snr_db``.
    """
    h = torch.randn(*symbols.shape, ANTENNAS, dtype=symbols.dtype, device=symbols.device, generator=generator)
    noise = torch.randn(symbols.shape, dtype=symbols.dtype, device=symbols.device, generator=generator)
    return symbols + noise * 10 ** (-snr_db[:, None] / 20) / torch.linalg.vector_norm(h, dim=-1)
