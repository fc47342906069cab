"""Which samples are worth steps of refinement: a rule that a receiver goes by, fitted when training is over."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from zoo.models.base import relative_error
from zoo.models.jscc import TRIAL_SEED, JSCCConfig, NetworkJSCC
from zoo.nn.snr_gate import UNIT_DB

WORTH_DB = 0.1  # that refinement must promise to take off a sample's error

R = TypeVar("R", bound=JSCCConfig)


class RefiningJSCC(NetworkJSCC[R]):
    """A joint source-channel code whose receiver chooses by itself what it refines (``steps="auto"``).

    It goes by k, the SNR and the energies of the symbols, and refines where a linear estimate promises :data:`WORTH_DB`.
    """

    rule: Tensor  # weights of what the receiver sees, by rate: refinement is worth it where their sum is positive, [rate, feature]

    def __init__(self, config: R) -> None:
        super().__init__(config)
        self.register_buffer("rule", torch.zeros(len(config.symbols), 3 + config.longest))

    def _worth(self, pairs: Tensor, snr_db: Tensor) -> Tensor:
        weights = self.rule[self.config.symbols.index(pairs.shape[1])]
        return self._features(pairs, snr_db) @ weights > 0

    def _features(self, pairs: Tensor, snr_db: Tensor) -> Tensor:
        """What the rule goes by: 1, the SNR and its square [B], the energies of the symbols. [n, feature]"""
        level = snr_db[:, None] / UNIT_DB
        return torch.cat((torch.ones_like(level), level, level.square(), self.padded(pairs).square().sum(2)), 1)

    @torch.inference_mode()
    def finish(self, x: Tensor) -> None:
        """Fit the rule: a linear estimate of the decibels that refinement takes off a sample's error, less :data:`WORTH_DB`."""
        if self.steps[0] < self.default_steps:
            self.rule.copy_(torch.stack([self._rule(x, k) for k in self.config.symbols]))

    def _rule(self, x: Tensor, k: int) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(TRIAL_SEED)
        seen, gained = [], []
        for image in self.to_image(x).split(self.at_once):
            draws = self.draws(len(image), generator)
            received = self.received(image, draws)[self.config.symbols.index(k)][:, :k]
            errors = [
                relative_error(self.estimate(received, draws["snr_db"], n), image)
                for n in (self.steps[0], self.default_steps)
            ]
            seen.append(self._features(received, draws["snr_db"]))
            gained.append(10 * torch.log10(errors[0] / errors[1]) - WORTH_DB)
        features = torch.cat(seen).double().cpu()
        moments = features.T @ features
        moments.diagonal().add_(1e-6 * len(features))  # symbols that are not sent have no energy
        return torch.linalg.solve(moments, features.T @ torch.cat(gained).double().cpu())
