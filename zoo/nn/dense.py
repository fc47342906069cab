"""Residual networks of dense layers over a whole sample, and product codebooks: what a CPU core trains in minutes.

A convolution uses each of its weights at every cell of a sample, a dense layer each of its weights once: the same number of parameters
costs a hundredth of the arithmetic, in matrix products that a core is fastest at. A sample of 32 x 32 cells in which place means
something (angle, delay) has little of the symmetry that convolutions are made for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn.quantise import straight_through
from zoo.nn.start import zeroed

RARE = 0.05  # of its even share: a word used less is replaced
MEMORY = 0.99  # of the count of a word's use, a step
COMMITMENT = (
    0.25  # weight of the latent's way to its word, beside that of the word to the latent (van den Oord et al. 2017)
)


class Block(nn.Module):
    """Residual block with gates: x + W3 (silu(W1 norm(x)) * W2 norm(x)). It starts as the identity.

    Source: N. Shazeer, "GLU variants improve transformer", 2020.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * hidden)
        self.down = zeroed(nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(self.norm(x)).chunk(2, -1)
        change: Tensor = self.down(nn.functional.silu(gate) * value)
        return x + change


class Stack(nn.Sequential):
    """Some residual blocks and a last normalisation, [n, width] to [n, width].

    :param width: of what goes through
    :param hidden: within a block
    :param blocks: how many
    """

    def __init__(self, width: int, hidden: int, blocks: int) -> None:
        super().__init__(*(Block(width, hidden) for _ in range(blocks)), nn.LayerNorm(width))


class Codebooks(nn.Module):
    """A codebook for each code of a payload; a latent vector is replaced by the nearest word of its own codebook.

    Words that are hardly used are moved to where latents are (:meth:`revive`).

    :param widths: bits of each code
    :param size: length of a latent vector
    """

    usage: Tensor  # how often each word was used of late, over its even share, [code, word]
    absent: Tensor  # words that the widths leave no room for, bool [code, word]

    def __init__(self, widths: tuple[int, ...], size: int) -> None:
        super().__init__()
        self.widths, most = widths, 2 ** max(widths)
        self.words = nn.Parameter(torch.randn(len(widths), most, size))
        self.register_buffer("usage", torch.ones(len(widths), most), persistent=False)
        counts = torch.tensor([2**width for width in widths])
        self.register_buffer("absent", torch.arange(most) >= counts[:, None], persistent=False)
        self.latest: Tensor | None = None  # latents of the last batch that was trained on

    def distances(self, latents: Tensor) -> Tensor:
        """Measure squared distances of latents [n, code, size] to every word, but for a latent's own square: [n, code, word]."""
        words = self.words.float()
        with torch.autocast(latents.device.type, enabled=False):  # half precision would take neighbours for the nearest
            products = torch.bmm(latents.float().transpose(0, 1), words.transpose(1, 2)).transpose(0, 1)
        far: Tensor = words.square().sum(2) - 2 * products
        return far.masked_fill(self.absent, torch.inf)

    def codes(self, latents: Tensor) -> Tensor:
        """Find the nearest word of each latent: [n, code, size] to int64 [n, code]."""
        return self.distances(latents).argmin(2)

    def forward(self, codes: Tensor) -> Tensor:
        """Look words up: int64 [n, code] to [n, code, size]."""
        return self.words[torch.arange(len(self.widths), device=codes.device), codes]

    def quantise(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Replace latents by their nearest words, with straight-through gradients; in training mode their use is counted.

        :param latents: [n, code, size]
        :returns: words, same shape, and the codebook loss, a scalar: mean square between latents and words, those of :data:`COMMITMENT`
        """
        latents = latents.float()
        codes = self.codes(latents)
        words = self(codes).float()
        if self.training:
            self.latest = latents.detach()
            with torch.no_grad():
                counts = torch.nn.functional.one_hot(codes, self.usage.shape[1]).sum(0)
                share = (~self.absent).sum(1, keepdim=True) / len(codes)
                self.usage.mul_(MEMORY).add_(counts * share, alpha=1 - MEMORY)
        to_words = (words - latents.detach()).square().mean()
        to_latents = (latents - words.detach()).square().mean()
        return straight_through(latents, words), to_words + COMMITMENT * to_latents

    @torch.no_grad()
    def revive(self, generator: torch.Generator) -> None:
        """Put words that are hardly used where latents of the last batch are."""
        if self.latest is None:
            return
        dead = (self.usage < RARE) & ~self.absent
        rows = torch.randint(len(self.latest), dead.shape, generator=generator, device=dead.device)
        chosen = self.latest[rows, torch.arange(len(self.widths), device=dead.device)[:, None]]
        moved = chosen + 0.01 * torch.randn(chosen.shape, generator=generator, device=dead.device)
        self.words[dead] = moved[dead].to(self.words.dtype)
        self.usage[dead] = 1.0
