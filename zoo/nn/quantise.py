"""Quantisers with codes: uniform scalars and trained vectors. Gradients pass straight through."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def uniform_codes(x: Tensor, bits: int) -> Tensor:
    """Codes of values in [-1, 1] on the 2^bits centres of equal cells.

    :param x: any shape; values beyond the range fall into the last cells
    :returns: int64 in 0 ... 2^bits - 1
    """
    levels = 2**bits
    return ((x.float() + 1) * (levels / 2)).floor().clamp(0, levels - 1).long()


def uniform_values(codes: Tensor, bits: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cell centres of :func:`uniform_codes`."""
    return ((codes.to(torch.float32) + 0.5) * (2.0 / 2**bits) - 1).to(dtype)


def mu_law(x: Tensor, mu: float) -> Tensor:
    """Compand values in [-1, 1], finer near zero (RD-JSCC §VII-C): sign(x) log(1 + mu |x|) / log(1 + mu)."""
    return x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)


def mu_law_inverse(x: Tensor, mu: float) -> Tensor:
    """Undo :func:`mu_law`: sign(x) ((1 + mu)^|x| - 1) / mu."""
    return x.sign() * (x.abs() * math.log1p(mu)).expm1() / mu


def straight_through(x: Tensor, quantised: Tensor) -> Tensor:
    """The quantised value going forward, the gradient of ``x`` going back: x + sg[quantised - x]."""
    return x + (quantised - x).detach()


class Codebook(nn.Module):
    """Trained vectors; each input vector is replaced by the nearest (van den Oord et al. 2017; GD-CSI §III-A).

    Its words must keep up with the vectors, which Adam's steps of one learning rate do not: they would be left behind, all but one
    unused. They take steps :attr:`pace` times as long.

    :param words: N_v, a power of two
    :param dimension: of each vector
    """

    pace = 30.0

    def __init__(self, words: int, dimension: int) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(words, dimension) * dimension**-0.5)

    def codes(self, x: Tensor) -> Tensor:
        """Index of the nearest word.

        :param x: [..., dimension]
        :returns: int64 [...]
        """
        words = self.words.float()
        with torch.autocast(x.device.type, enabled=False):  # half precision would take neighbours for the nearest
            return (words.square().sum(1) - 2 * x.float() @ words.T).argmin(-1)

    def forward(self, codes: Tensor) -> Tensor:
        """The words themselves: int64 [...] to [..., dimension]."""
        return self.words[codes]

    def quantise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Nearest words with straight-through gradients, and the codebook loss (GD-CSI §III-A).

        :param x: [n, ..., dimension]
        :returns: words, same shape, and ||sg[x] - e||^2 + ||x - sg[e]||^2 of each sample, [n]
        """
        words = self(self.codes(x))
        loss = ((x.detach() - words).square() + (x - words.detach()).square()).float().flatten(1).sum(1)
        return straight_through(x, words), loss
