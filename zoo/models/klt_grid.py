"""KLT-grid: linear transform and Lloyd-Max scalars; the base station finds the UE's velocity, and with it the best linear estimate.

    UE                                                              base station
    x --analysis--> s --Lloyd-Max--> codes ~~ payload ~~> levels --+--> how likely is each velocity? --> p_v --+
                                                                   |                                           +--> z^ = sum_v p_v W_v o
    y --principal components---------------------------------------+ o --> linear estimate at each velocity ---+

Everything is Gaussian once the velocity v is known, and the statistics are known in closed form (:class:`zoo.covariances.Statistics`):
X = D w, Z = D w', Y = U w' + noise, E[w' w^H] = diag(chi(v)). Levels count as s + noise, the Gaussian test channel. The linear
estimates' mean over velocities, weighted by likelihood, is the conditional mean of Z: the estimate of least mean squared error.

The transform starts as the KLT of X and is turned and stretched by gradient descent on the decoder's own error at a fixed rate: what
counts is not X, but what X says of Z that Y does not, and what X and Y together say of the velocity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from zoo.covariances import Statistics, noise_variance
from zoo.errors import ZooError
from zoo.models.base import CodecConfig
from zoo.models.klt import KEPT, TransformCodec, TransformConfig
from zoo.nn.lloyd_max import allocate

if TYPE_CHECKING:
    from zoo.config import Training
    from zoo.data import Source

FAINT = 0.01  # variance over noise below which a component of Y tells nothing
PART = 64  # samples whose velocities are weighed at once; bounds the memory
TEST_CHANNEL = 0.75  # bits at which a Gaussian test channel does what a Lloyd-Max scalar does with one
STEPS, BATCH, LEARNING_RATE, SEEN = 300, 128, 0.05, 48  # of fitting the transform


class KLTGridConfig(TransformConfig):
    """See :class:`TransformConfig`; the rest are sizes of the statistics."""

    side_information_components: int = Field(
        80, ge=1, description="principal components of Y that the decoder looks at"
    )
    velocities: int = Field(ge=1, description="V, velocities that the decoder considers")
    clusters: int = Field(ge=1, description="C, clusters of the channel model")
    latents: int = Field(ge=1, description="L, latents of all clusters")


class Law(NamedTuple):
    """Joint law of X, Y and Z: principal components as maps of latents, in units of the scale."""

    target: Tensor  # [t, L]: X's components are target @ w, Z's are target @ w'
    basis: Tensor  # [cell, t], orthonormal: X and Z from their components
    uplink: Tensor  # [m, L]: Y's components are uplink @ w' + unit noise
    side: Tensor  # [m, cell]: Y to its components
    correlation: Tensor  # [V, L]: E[w' w*] at each velocity

    @classmethod
    def of(cls, downlink: Tensor, uplink: Tensor, correlation: Tensor, components: int, snr_db: float) -> Law:
        """From the maps D and U, complex128 [cell, L].

        :param components: of Y to keep, m at most
        :param snr_db: of Y
        """
        power, turn = _principal(downlink)
        kept = int((power > KEPT * power.sum()).sum())
        root = power[:kept].sqrt()
        seen, side = _principal(uplink)
        noise = noise_variance(float(seen.sum()), len(uplink), snr_db)
        components = min(components, int((seen > FAINT * noise).sum()))
        seen, side = (seen[:components] / noise).sqrt(), side[:, :components]
        return cls(
            target=root[:, None] * turn[:, :kept].mH,
            basis=downlink @ turn[:, :kept] / root,
            uplink=seen[:, None] * side.mH,
            side=(uplink @ side).mH / (seen[:, None] * noise),
            correlation=correlation,
        )


def _principal(latents_to_cells: Tensor) -> tuple[Tensor, Tensor]:
    power, turn = torch.linalg.eigh(latents_to_cells.mH @ latents_to_cells)
    return power.flip(0), turn.flip(1)


class Decoder(NamedTuple):
    """What is known at each velocity of o = (s + noise [k], Y's components [m]) and of Z's components [t]."""

    whitener: Tensor  # [V, m, k + m]: turns o into white noise where the velocity is right
    log_determinant: Tensor  # [V], of the covariance of what it whitens
    estimator: Tensor  # [V, t, k + m]

    @classmethod
    def of(cls, law: Law, transform: Tensor, noise: Tensor) -> Decoder:
        """Differentiable.

        :param transform: s = transform @ w, [k, L]
        :param noise: variance of each s's noise, real [k]
        """
        chi, seen = law.correlation, law.uplink
        latent = torch.linalg.solve(transform @ transform.mH + torch.diag(noise).to(transform), transform).mH
        # given s and v: w' has mean chi latent s and covariance `left`, Y's components have mean (seen chi latent) s
        left = torch.eye(len(latent), device=chi.device) - chi[:, :, None] * (latent @ transform) * chi[:, None].conj()
        cross = seen @ left
        root = torch.linalg.cholesky(cross @ seen.mH + torch.eye(len(seen), device=chi.device))
        novelty = torch.cat((-(seen * chi[:, None]) @ latent, torch.eye(len(seen)).to(chi).expand_as(root)), 2)
        whitener = torch.linalg.solve_triangular(root, novelty, upper=False)
        gain = law.target @ torch.linalg.solve_triangular(root, cross, upper=False).mH
        estimator = gain @ whitener
        expected = (law.target * chi[:, None]) @ latent
        estimator = estimator + torch.nn.functional.pad(expected, (0, len(seen)))
        return cls(whitener, 2 * root.diagonal(dim1=1, dim2=2).real.log().sum(1), estimator)

    def __call__(self, o: Tensor) -> Tensor:
        """Conditional mean of Z's components, complex [n, k + m] to [n, t]."""
        white = (o @ self.whitener.flatten(0, 1).mT).unflatten(1, self.whitener.shape[:2])
        likelihood = -torch.view_as_real(white).square().sum((2, 3)) - self.log_determinant
        weighted = torch.softmax(likelihood, 1)[:, :, None] * o[:, None]
        return weighted.flatten(1) @ self.estimator.mT.flatten(0, 1)


def fit_transform(law: Law, bits: float, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The transform of least error behind a Gaussian test channel of given rate.

    Unit noise is added to s = a t, where t are X's components at unit variance. A unitary turn of s changes nothing, so that the rate is
    log2 det(I + a a^H) and s may be taken as uncorrelated in the end.

    :param bits: rate
    :param steps: of Adam; 0 leaves the KLT of X
    :returns: rows [t, L] of s = rows @ w, uncorrelated, E|s|^2 = 1; variances before that normalisation, descending
    """
    generator = torch.Generator().manual_seed(seed)
    law = Law(*(part.to(torch.complex64) for part in law))
    law = law._replace(uplink=law.uplink[:SEEN])
    deviation = law.target.abs().square().sum(1).sqrt()
    unit = law.target / deviation[:, None]
    energy = deviation.square().sum()
    velocities, latents = law.correlation.shape
    a = torch.diag(deviation)[: math.ceil(bits / 3) + 8].to(unit).requires_grad_()
    adam = torch.optim.Adam([a], lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(steps, 1))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.complex64, generator=generator)

    for _ in range(steps):
        transform = _gain(torch.linalg.eigvalsh(a @ a.mH), bits).sqrt() * a @ unit
        order = torch.arange(velocities).roll(int(torch.randint(velocities, (1,), generator=generator)))
        # any run of velocities fills their law evenly
        grid, true = order[: -(-velocities // 3)], order[velocities // 3 :]
        chi = law.correlation[true[torch.randint(len(true), (BATCH,), generator=generator)]]
        w = normal(BATCH, latents)
        later = chi * w + (1 - chi.abs().square()).clamp_min(0).sqrt() * normal(BATCH, latents)
        s, y = w @ transform.mT, later @ law.uplink.mT
        decoder = Decoder.of(law._replace(correlation=law.correlation[grid]), transform, torch.ones(len(a)))
        error = decoder(torch.cat((s + normal(*s.shape), y + normal(*y.shape)), 1)) - later @ law.target.mT
        loss = torch.view_as_real(error).square().sum() / (BATCH * energy)
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    with torch.no_grad():
        wide = a.to(torch.complex128)
        variances, turn = torch.linalg.eigh(wide @ wide.mH)
        variances, turn = variances.flip(0), turn.flip(1)
        return turn.mH @ wide / variances.sqrt()[:, None] @ unit.to(wide), variances


def _gain(variances: Tensor, bits: float) -> Tensor:
    """g with sum of log2(1 + g variances) = bits, by Newton's method on log g; its last step carries the gradient."""
    log_gain = torch.zeros((), dtype=torch.float64)
    for values in [variances.detach()] * 30 + [variances]:
        raised = values.double() * log_gain.exp()
        slope = (raised / (1 + raised)).sum().detach() / math.log(2)
        log_gain = log_gain - ((1 + raised).log2().sum() - bits) / slope
    return log_gain.exp().float()


class KLTGrid(TransformCodec[KLTGridConfig]):
    """See the top of this file. Make one with :meth:`fit`.

    Weights are the factors of the statistics alone; the maps and the decoder's tables are made of them in float64 when first needed.
    """

    Config: ClassVar[type[CodecConfig]] = KLTGridConfig
    OPTIONS = (*TransformCodec.OPTIONS, "steps")
    roots: Tensor
    cluster: Tensor
    downlink_taps: Tensor
    uplink_taps: Tensor
    correlation: Tensor
    transform: Tensor

    def __init__(self, config: KLTGridConfig) -> None:
        super().__init__(config)
        c, latents = config.clusters, config.latents
        self.register_buffer("roots", torch.zeros(latents, config.angles, 2))  # in units of scale
        self.register_buffer("cluster", torch.zeros(latents, dtype=torch.int64))
        self.register_buffer("downlink_taps", torch.zeros(c, config.delays, 2))
        self.register_buffer("uplink_taps", torch.zeros(c, config.delays, 2))
        self.register_buffer("correlation", torch.zeros(config.velocities, c, 2))
        self.register_buffer("transform", torch.zeros(config.components, latents, 2))  # latents to components sent
        self.register_load_state_dict_post_hook(lambda codec, _: codec._forget())

    @classmethod
    def from_source(cls, source: Source, training: Training, fields: dict[str, Any]) -> Self:
        options = cls.options(training, fields)
        if not options.pop("side_information"):
            raise ZooError("klt-grid decodes with side information; use klt without")
        return cls.fit(statistics=source.statistics(), **options)

    @classmethod
    def fit(
        cls,
        rate: int,
        statistics: Statistics,
        *,
        steps: int = STEPS,
        side_information_components: int = 80,
        side_information_snr_db: float = 30.0,
    ) -> Self:
        """Make the codec from a law in closed form; no samples are needed.

        :param rate: bits of a payload
        :param statistics: of the data set
        :param steps: of fitting the transform; 0 leaves the KLT of X
        :param side_information_components: see the config; likewise ``side_information_snr_db``
        :raises ZooError: a rate that the components of X cannot take
        """
        downlink, uplink, correlation = (
            torch.from_numpy(np.ascontiguousarray(part, complex))
            for part in (statistics.downlink, statistics.uplink, statistics.latent_correlation)
        )
        scale = downlink.norm() / math.sqrt(len(downlink))
        law = Law.of(
            downlink / scale, uplink / scale, correlation, side_information_components, side_information_snr_db
        )
        rows, variances = fit_transform(law, TEST_CHANNEL * rate, steps)
        widths = allocate(variances.numpy(), rate)
        codec = cls(
            KLTGridConfig(
                angles=statistics.roots.shape[1], delays=statistics.downlink_taps.shape[1],
                rate=rate, widths=widths, velocities=len(statistics.correlation),
                clusters=len(statistics.downlink_taps), latents=len(statistics.roots),
                side_information_components=len(law.side), side_information_snr_db=side_information_snr_db,
            )
        )  # fmt: skip
        codec.scale.copy_(scale)
        codec.cluster.copy_(torch.from_numpy(statistics.cluster))
        codec.store(
            roots=statistics.roots / float(scale), downlink_taps=statistics.downlink_taps,
            uplink_taps=statistics.uplink_taps, correlation=statistics.correlation,
            transform=rows[: codec.config.components].numpy(),
        )  # fmt: skip
        return codec

    # made of the weights when first needed, and anew when those are loaded or moved ------------------------------------------

    @functools.cached_property
    def _law(self) -> Law:
        roots, down, up, chi = (
            self.as_complex(part).to(torch.complex128)
            for part in (self.roots, self.downlink_taps, self.uplink_taps, self.correlation)
        )
        downlink, uplink = (torch.einsum("la,ld->adl", roots, taps[self.cluster]).flatten(0, 1) for taps in (down, up))
        seen = self.config.side_information_components
        return Law.of(downlink, uplink, chi[:, self.cluster], seen, self.config.side_information_snr_db)

    @functools.cached_property
    def _analysis(self) -> Tensor:
        """X to the components sent: transform @ pseudo-inverse of D, [k, cell]."""
        power = self._law.target.abs().square().sum(1)
        inverse = (self._law.target / power[:, None]).mH @ self._law.basis.mH
        return (self.as_complex(self.transform).to(inverse) @ inverse).to(self.complex_dtype)

    @functools.cached_property
    def _decoder(self) -> Decoder:
        error = self.quantiser.error.double()
        transform = self.as_complex(self.transform).to(torch.complex128)
        tables = Decoder.of(self._law, transform, error / (1 - error))
        real = self.complex_dtype.to_real()
        return Decoder(*(part.to(self.complex_dtype if part.is_complex() else real) for part in tables))

    def _forget(self) -> None:
        for name in ("_law", "_analysis", "_decoder"):
            self.__dict__.pop(name, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._forget()
        return super()._apply(fn, recurse)

    # codec ------------------------------------------------------------------------------------------------------------------

    def analyse(self, x: Tensor) -> Tensor:
        return (x / self.scale) @ self._analysis.T

    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        assert y is not None  # the config says so
        s = self.quantiser(codes) / (1 - self.quantiser.error)
        side, basis = (part.to(self.complex_dtype) for part in (self._law.side, self._law.basis))
        o = torch.cat((s.to(self.complex_dtype), (y.flatten(1) / self.scale) @ side.T), 1)
        z = torch.cat([self._decoder(part) for part in o.split(PART)])
        return (z @ basis.T * self.scale).unflatten(1, (self.config.angles, self.config.delays))
