"""KLT: the classical reference. Linear transform, Lloyd-Max scalars, linear MMSE estimate.

    UE                                                                    base station
    x --analysis--> components --Lloyd-Max--> codes ~~ payload ~~> levels --+
                                                                            +--estimator--> z^
    y --principal components------------------------------------------------+

The components sent are those of what the base station makes of X: with W_x the part of the linear estimate W_x x + W_y y of Z that
comes from X, the KLT of W_x x. Where Z = X and there is no Y that is the KLT of X itself.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.covariances import Array, Covariances, as_arrays, noise_variance, principal
from zoo.errors import ZooError, unknown
from zoo.models.base import Codec, CodecConfig, Fitted
from zoo.nn.lloyd_max import MAX_WIDTH, GaussianQuantiser, allocate

if TYPE_CHECKING:
    from zoo.config import Training
    from zoo.data import Source

SAMPLES = 20_000  # that covariances are taken of, unless the recipe says otherwise
KEPT = 1e-6  # principal components of X and Z kept: share of the energy above which one counts


class TransformConfig(CodecConfig):
    """Of a codec that quantises components one by one."""

    rate: int = Field(ge=1, description="bits of a payload")
    widths: tuple[int, ...] = Field(
        description="bits of the real and imaginary part of each component, (re, im, re, im, ...); fitted"
    )
    side_information_components: int = Field(
        48, ge=0, description="principal components of Y that the decoder looks at"
    )
    side_information_snr_db: float = Field(
        30.0, description="SNR of Y that the decoder assumes [dB]: energy of Y over that of white noise, all cells"
    )

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if sum(self.widths) != self.rate:
            raise ValueError(f"widths sum to {sum(self.widths)} bits; the rate is {self.rate}")
        if len(self.widths) % 2 or not all(0 <= width <= MAX_WIDTH for width in self.widths):
            raise ValueError(f"widths must be pairs of 0 to {MAX_WIDTH} bits")
        if self.side_information != (self.side_information_components > 0):
            raise ValueError("side_information_components must be 0 without side information, and only then")
        return self

    @property
    def components(self) -> int:
        """Complex components of X that get bits."""
        return len(self.widths) // 2


T = TypeVar("T", bound=TransformConfig)


class TransformCodec(Codec[T], Fitted[T]):
    """A codec that sends components of X, E|s|^2 = 1 each, through Lloyd-Max quantisers."""

    OPTIONS: ClassVar[tuple[str, ...]] = (
        "rate",
        "side_information",
        "side_information_components",
    )  # that a recipe may give

    def __init__(self, config: T) -> None:
        super().__init__(config)
        self.quantiser = GaussianQuantiser(config.widths)

    @property
    def widths(self) -> tuple[int, ...]:
        return self.config.widths

    @abstractmethod
    def analyse(self, x: Tensor) -> Tensor:
        """What is sent of X: complex [n, cell] to [n, component], E|s|^2 = 1 each."""

    def codes(self, x: Tensor) -> Tensor:
        return self.quantiser.codes(self.analyse(x.flatten(1)))

    @classmethod
    def options(cls, training: Training, fields: dict[str, Any]) -> dict[str, Any]:
        """What of a recipe :meth:`fit` takes.

        :raises ZooError: a field that no codec of this kind has, or no noise on Y
        """
        given = {name: value for name, value in fields.items() if name not in ("angles", "delays")}  # those of the data
        for name in given:
            if name not in cls.OPTIONS:
                raise ZooError(unknown("key", name, cls.OPTIONS))
        rate = given.get("rate")
        if not isinstance(rate, int) or isinstance(rate, bool) or rate < 1:
            raise ZooError(f"rate = {rate!r}: it should be a number of bits, 1 and up")
        if training.side_information_snr_db is None:
            raise ZooError(
                "a linear estimate from Y without noise means nothing; give training.side_information_snr_db in dB"
            )
        return {**given, "side_information_snr_db": training.side_information_snr_db}

    def store(self, **values: Array) -> None:
        """Set buffers of pairs from complex arrays."""
        for name, value in values.items():
            self.get_buffer(name).copy_(torch.view_as_real(torch.from_numpy(np.ascontiguousarray(value, complex))))


class KLTConfig(TransformConfig):
    """See :class:`TransformConfig`."""


class KLT(TransformCodec[KLTConfig]):
    """See the top of this file. Make one with :meth:`fit`."""

    Config: ClassVar[type[CodecConfig]] = KLTConfig
    analysis: Tensor  # X to components, in units of 1 / scale
    side_analysis: Tensor  # Y to its principal components
    estimator: Tensor  # levels in units of scale, components of Y, to Z

    def __init__(self, config: KLTConfig) -> None:
        super().__init__(config)
        cells, seen = config.angles * config.delays, config.side_information_components
        self.register_buffer("analysis", torch.zeros(config.components, cells, 2))
        self.register_buffer("side_analysis", torch.zeros(seen, cells, 2))
        self.register_buffer("estimator", torch.zeros(cells, config.components + seen, 2))

    def analyse(self, x: Tensor) -> Tensor:
        return (x / self.scale) @ self.as_complex(self.analysis).T

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        known = self.quantiser(codes).to(self.complex_dtype) * self.scale
        if y is not None:
            known = torch.cat((known, y.flatten(1) @ self.as_complex(self.side_analysis).T), 1)
        return (known @ self.as_complex(self.estimator).T).unflatten(1, (self.config.angles, self.config.delays))

    @classmethod
    def from_source(cls, source: Source, training: Training, fields: dict[str, Any]) -> Self:
        options = cls.options(training, fields)
        if not options.pop("side_information"):
            options["side_information_components"] = 0
        batches = source.once(training.samples or SAMPLES)
        return cls.fit(covariances=Covariances.of(map(as_arrays, batches)), **options)

    @classmethod
    def fit(
        cls,
        rate: int,
        covariances: Covariances,
        *,
        side_information_components: int = 48,
        side_information_snr_db: float = 30.0,
    ) -> Self:
        """Fit to second moments of samples; some 20 000 are plenty.

        :param rate: bits of a payload
        :param covariances: of X, Z and, where the decoder is given it, Y
        :param side_information_components: see the config; 0 ignores Y
        :param side_information_snr_db: see the config
        :raises ZooError: a rate that the components of X cannot take
        """
        cells = len(covariances.x)
        power, directions = principal(covariances.x)
        kept = power > KEPT * power.sum()
        whiten = (directions[:, kept] / np.sqrt(power[kept])).conj().T  # X to uncorrelated components t, E|t|^2 = 1
        zt = covariances.zx @ whiten.conj().T
        if covariances.y is None or covariances.yx is None or covariances.zy is None:
            side_information_components = 0
            side, vt, zv, v = (np.zeros(shape, complex) for shape in ((0, cells), (0, len(whiten)), (cells, 0), (0, 0)))
        else:
            seen, directions = principal(covariances.y)
            side = directions[:, :side_information_components].conj().T  # Y to components v
            noise = noise_variance(float(seen.sum()), cells, side_information_snr_db)
            vt, zv = side @ covariances.yx @ whiten.conj().T, covariances.zy @ side.conj().T
            v = np.diag(seen[:side_information_components] + noise).astype(complex)

        exact = _linear_estimator(np.eye(len(whiten), dtype=complex), vt, v, zt, zv)[:, : len(whiten)]
        _, strength, rows = np.linalg.svd(exact, full_matrices=False)  # KLT of W_x x
        widths = allocate(strength**2, rate)
        rows = rows[: len(widths) // 2]
        codec = cls(
            KLTConfig(
                angles=covariances.shape[0], delays=covariances.shape[1], side_information=side_information_components > 0,
                rate=rate, widths=widths,
                side_information_components=side_information_components, side_information_snr_db=side_information_snr_db,
            )
        )  # fmt: skip
        sent = 1 - codec.quantiser.error.double().numpy()  # E|s^|^2 = E[s^* s]: levels are their cells' means
        codec.scale.copy_(torch.tensor(np.sqrt(power.sum() / cells)))
        scale = float(codec.scale)
        s = sent[:, None] * rows.conj()
        estimator = _linear_estimator(np.diag(sent).astype(complex), vt @ s.T, v, zt @ s.T, zv)
        estimator[:, : len(rows)] /= scale
        codec.store(analysis=scale * rows @ whiten, side_analysis=side, estimator=estimator)
        return codec


def _linear_estimator(s: Array, vs: Array, v: Array, zs: Array, zv: Array) -> Array:
    """Linear MMSE estimate of z from (s, v), from their covariances: [z, s + v]."""
    known = np.block([[s, vs.conj().T], [vs, v]])
    return np.linalg.solve(known, np.concatenate((zs, zv), 1).conj().T).conj().T
