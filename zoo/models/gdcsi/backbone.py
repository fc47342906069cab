"""What the networks of GD-CSI do, whatever they are made of."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """Encoder, payload and denoiser. CSI comes and goes as images, real [n, 2 (re, im), angle, delay] in units of the model's scale.

    The denoiser works on z [n, 2, angle, delay], which is the target's image unless :meth:`hidden` and :meth:`image` say otherwise.
    """

    def prepare(self, x: Tensor) -> None:
        """Fit what is fitted before training.

        :param x: images of training samples
        """

    @property
    def at_once(self) -> int | None:
        """Samples that it handles at once; None leaves it to the model."""
        return None

    @abstractmethod
    def widths(self, rate: int) -> tuple[int, ...]:
        """State the bits of each code of a rate's payload, in order."""

    @abstractmethod
    def codes(self, x: Tensor, rate: int) -> Tensor:
        """Quantise images: int64 [n, len(widths)]."""

    @abstractmethod
    def context(self, codes: Tensor, y: Tensor | None, rate: int) -> Any:
        """Make what the denoiser is conditioned on: tensors of n rows each.

        :param codes: int64 [n, len(widths)]
        :param y: image of the side information, where there is any
        """

    @abstractmethod
    def denoise(self, z: Tensor, context: Any, time: Tensor) -> Tensor:
        """Estimate z_0 from z_t.

        :param time: t / T, [n]
        """

    def hidden(self, image: Tensor, context: Any) -> Tensor:
        """Turn an image into the denoiser's z_0."""
        return image

    def image(self, z: Tensor, context: Any) -> Tensor:
        """Undo :meth:`hidden`."""
        return z

    @abstractmethod
    def quantise(self, x: Tensor, y: Tensor | None, seen: Mapping[str, Tensor]) -> tuple[Any, Tensor, Tensor]:
        """Make the context as training sees it, with gradients to the encoder, where it has any. Each rate gets its share of the samples.

        :param x: images
        :param seen: what :meth:`observe` says of the very samples
        :returns: the context; the codebook loss, [n] or a scalar; which of the rates each sample has, int64 [n]
        """

    def observe(self, x: Tensor, start: int) -> dict[str, Tensor]:
        """Note what training needs of samples and no step changes: tensors of n rows each, computed once.

        :param x: images
        :param start: number of the first of them
        """
        return {}

    def allowed(self, phase: Tensor) -> Tensor:
        """Round random phases [n] to those that training may turn samples by."""
        return phase

    def tend(self, generator: torch.Generator) -> None:
        """Mend what gradients do not reach, now and then in training."""

    def search(self, x: Tensor, rate: int, effort: int, decode: Callable[[Any, int], Tensor]) -> Tensor:
        """Look for codes whose decoded image is nearer to x than that of :meth:`codes`, or as near: int64 [n, len(widths)].

        :param effort: 1 and up: how long to look
        :param decode: context of n samples, and n, to images
        """
        raise TypeError(f"{type(self).__name__} has no search")

    @abstractmethod
    def weights_of(self, rate: int) -> dict[str, Tensor]:
        """Give the state of the networks of one rate alone."""


def turned(image: Tensor, phase: Tensor) -> Tensor:
    """Multiply images [n, 2, angle, delay] by exp(j phase), [n]."""
    cos, sin = (part[:, None, None] for part in (phase.cos(), phase.sin()))
    return torch.stack((image[:, 0] * cos - image[:, 1] * sin, image[:, 0] * sin + image[:, 1] * cos), 1)
