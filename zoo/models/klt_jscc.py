"""The linear reference of every joint source-channel code: principal components as symbols, a linear estimate of what arrives.

    c = U_k^H x,  s = c diag(E|c|^2)^-p to unit power,   x^ = U_k diag(w) s^

p is the loading of least error at each SNR: 0 sends components as strong as they are, 1/4 is best for a Gaussian source at high SNR, 1/2
makes all symbols alike. Each w is the linear MMSE estimate of its component at that k and SNR. Both come in closed form from samples;
between whole decibels they are interpolated. A first k of the symbols is the code of the next lower rate.

Source: K.-H. Lee and D. P. Petersen, "Optimal linear coding for vector channels", IEEE Trans. Communications 1976. That each sample, and
not the average, has unit power costs it the sample's own strength, which :mod:`zoo.models.adjscc` can learn to send.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from pydantic import ValidationError
from torch import Tensor

from zoo.config import Training, explain
from zoo.covariances import principal
from zoo.data import Source
from zoo.errors import ZooError
from zoo.models.base import Fitted
from zoo.models.jscc import JSCC, JSCCConfig
from zoo.uplink import ANTENNAS, unit_power

SAMPLES = 20_000  # that it is fitted on, where the recipe does not say
LOADINGS = tuple(step / 20 for step in range(11))  # p
NOISE = 1 / (ANTENNAS - 1)  # E[1 / ||h||^2] of Rayleigh fading: the combined noise at 0 dB an antenna


class KLTJSCCConfig(JSCCConfig):
    """SNRs outside of ``snr_db`` are taken for its ends."""


class KLTJSCC(JSCC[KLTJSCCConfig], Fitted[KLTJSCCConfig]):
    """Family ``klt-jscc``."""

    Config = KLTJSCCConfig
    directions: Tensor  # U, pairs [component, cell, 2]
    loading: Tensor  # E|c|^2^-p of each whole decibel, [level, component]
    receiving: Tensor  # w, [rate, level, component]

    def __init__(self, config: KLTJSCCConfig) -> None:
        super().__init__(config)
        rates, k, cells = len(config.symbols), config.longest, config.angles * config.delays
        levels = len(self.levels())
        self.register_buffer("directions", torch.zeros(k, cells, 2))
        self.register_buffer("loading", torch.zeros(levels, k))
        self.register_buffer("receiving", torch.zeros(rates, levels, k))

    def levels(self) -> range:
        """The decibels that the code is fitted for."""
        low, high = self.config.snr_db
        return range(round(low), round(high) + 1)

    def latent(self, image: Tensor, snr_db: Tensor) -> Tensor:
        components = torch.complex(image[:, 0], image[:, 1]).flatten(1) @ self.as_complex(self.directions).mH
        return torch.view_as_real(components) * self._at(self.loading, snr_db)[:, :, None]

    def estimate(self, received: Tensor, snr_db: Tensor, steps: int) -> Tensor:
        k = received.shape[1]
        weights = self._at(self.receiving[self.config.symbols.index(k)], snr_db)[:, :k]
        components = torch.view_as_complex((received * weights[:, :, None]).contiguous())
        cells = (components @ self.as_complex(self.directions[:k])).unflatten(
            1, (self.config.angles, self.config.delays)
        )
        return torch.stack((cells.real, cells.imag), 1)

    def _at(self, table: Tensor, snr_db: Tensor) -> Tensor:
        """Rows of a table [level, component] at some SNRs [n], between levels in proportion."""
        place = (snr_db - self.levels()[0]).clamp(0, len(table) - 1)
        below = place.long().clamp(max=max(len(table) - 2, 0))
        share = (place - below)[:, None]
        return table[below] * (1 - share) + table[(below + 1).clamp(max=len(table) - 1)] * share

    @classmethod
    def from_source(cls, source: Source, training: Training, fields: dict[str, Any]) -> Self:
        try:
            config = cls.Config.model_validate(fields)
        except ValidationError as error:
            raise ZooError(f"recipe of klt-jscc: codec: {explain(error, cls.Config)}") from None
        return cls.fit(torch.cat([batch.x.cpu() for batch in source.once(training.samples or SAMPLES)]), config)

    @classmethod
    def fit(cls, x: Tensor, config: KLTJSCCConfig) -> Self:
        """Fit to samples; some 20 000 are plenty.

        :param x: physical values, complex [n, angle, delay]
        """
        code, cells = cls(config), x.flatten(1)
        code.scale.copy_(cells.abs().square().mean().sqrt())
        variances, directions = principal_directions(x, config.longest)
        code.directions.copy_(torch.view_as_real(directions))
        norms = torch.linalg.vector_norm(cells, dim=1, keepdim=True)
        shares = cells / norms @ directions.to(cells.dtype).mH  # components of samples of energy one
        for level, snr_db in enumerate(code.levels()):
            noise = NOISE * 10 ** (-snr_db / 10) * norms.square().reciprocal().mean()
            tried = [_linear_code(shares, norms, variances**-p, noise, config.symbols) for p in LOADINGS]
            best = min(range(len(LOADINGS)), key=lambda number: tried[number][0])
            code.loading[level] = variances ** -LOADINGS[best]
            code.receiving[:, level] = tried[best][1] / code.scale
        return code


def _linear_code(
    shares: Tensor, norms: Tensor, loading: Tensor, noise: Tensor, symbols: tuple[int, ...]
) -> tuple[float, Tensor]:
    """Relative error, summed over the rates, and the receiver's weights [rate, component], zero behind the k-th."""
    error, weights = 0.0, torch.zeros(len(symbols), len(loading))
    for rate, k in enumerate(symbols):
        sent = unit_power(shares[:, :k] * loading[:k])
        wanted = (shares[:, :k] * sent.conj() / norms).real.mean(0)
        arrived = (sent.abs() / norms).square().mean(0) + noise
        weights[rate, :k] = wanted / arrived
        error += 1 - (wanted.square() / arrived).sum().item()
    return error, weights


def principal_directions(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Strongest principal components of samples' directions, every sample of energy one.

    :param x: complex [n, angle, delay]
    :returns: energies, [k], and U^T, [k, cell]
    """
    rows = x.flatten(1).to(torch.complex128)
    rows = rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    energies, directions = principal((rows.mT @ rows.conj() / len(rows)).numpy())
    return (
        torch.from_numpy(energies[:k].copy()).clamp(min=torch.finfo(torch.float32).eps).float(),
        torch.from_numpy(directions[:, :k].T.copy()).to(torch.complex64),
    )
