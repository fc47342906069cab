"""GD-CSI round the law of a data set that is known in closed form: training starts as a conditional mean, and need not learn it.

    x -- linear (+) blocks --> latents -- nearest words --> codes
    words -- linear --> s;  s, y -- conditional mean over all velocities --> z_m;  words, y, z_m -- blocks --> z_0 = z^ - z_m

The law is that of klt-grid (:mod:`zoo.models.klt_grid`), whose transform the latents start as. Codebooks start as the best ones of the
latents' own law; the networks' last layers start at zero. Beside the networks a model holds the factors of the law alone: its tables are
made of them in float64 when first needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from zoo.covariances import Array, Statistics
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.models.gdcsi.dense import DenseBackbone, Rate
from zoo.models.klt_grid import TEST_CHANNEL, Law, fit_transform
from zoo.nn.frame import Framing
from zoo.nn.start import zeroed

STEPS = 200  # of fitting a rate's transform
DRAWS, ROUNDS = 16_384, 12  # latents that codebooks start from, and rounds of Lloyd's algorithm
PART = 128  # samples whose velocities are weighed at once, where no gradient is asked for
REST = 0.1  # standard deviations of a cell that the denoiser's 1 adds to the conditional mean
MOST_NOISE = 0.98  # share of a component's variance that its words may leave open: one that is not sent has this


class Context(NamedTuple):
    """What the denoiser is told, and what it adds to."""

    told: Tensor  # [n, width]
    framing: Framing
    mean: Tensor  # image [n, 2, angle, delay]


class Mixture(NamedTuple):
    """The conditional mean of Z given o = s + noise [k] and Y's components [m]: E[z|y] and, of each velocity, what o says beyond y.

    It is what :class:`zoo.models.klt_grid.Decoder` computes, and costs a fraction where k is below m: y alone tells nothing of a velocity.
    """

    novelty: Tensor  # [k + m, V * k]: (o, y) to o - E[o|y] at each velocity, as white unit noise
    log_determinant: Tensor  # [V], of the covariance of what it whitens
    gain: Tensor  # [V * k, t]: that to Z's components
    expected: Tensor  # [m, t]: y to E[z|y]

    @classmethod
    def of(cls, law: Law, transform: Tensor, noise: Tensor) -> Mixture:
        """From the law.

        :param transform: s = transform @ w, [k, L]
        :param noise: variance of each s's noise, real [k]
        """
        seen, eye = law.uplink, torch.eye(len(law.uplink)).to(law.uplink)
        latent = seen.mH @ torch.linalg.inv(seen @ seen.mH + eye)  # y to E[w'|y]
        left = torch.eye(seen.shape[1]).to(seen) - latent @ seen  # covariance of w' given y
        later = transform * law.correlation[:, None].conj()  # E[s w'^H], [V, k, L]
        covariance = transform @ transform.mH + torch.diag(noise).to(seen) - later @ (latent @ seen) @ later.mH
        root = torch.linalg.cholesky(covariance)
        own = torch.eye(len(transform)).to(seen).expand_as(root)
        whitener = torch.linalg.solve_triangular(root, torch.cat((own, -later @ latent), 2), upper=False)
        gain = torch.linalg.solve_triangular(root, later @ left @ law.target.mH, upper=False).conj()
        log_determinant = 2 * root.diagonal(dim1=1, dim2=2).real.log().sum(1)
        return cls(
            whitener.flatten(0, 1).mT.contiguous(), log_determinant, gain.flatten(0, 1), (law.target @ latent).mT
        )

    def __call__(self, o: Tensor, y: Tensor) -> Tensor:
        """Z's components, complex [n, t], of o [n, k] and y [n, m]."""
        white = (torch.cat((o, y), 1) @ self.novelty).unflatten(1, (len(self.log_determinant), -1))
        likelihood = -torch.view_as_real(white).square().sum((2, 3)) - self.log_determinant
        weighted = torch.softmax(likelihood, 1)[:, :, None] * white
        return y @ self.expected + weighted.flatten(1) @ self.gain

    def to(self, kind: torch.dtype) -> Mixture:
        """The same in another complex type."""
        return Mixture(*(part.to(kind if part.is_complex() else kind.to_real()) for part in self))


class Tables(NamedTuple):
    """What is made of the factors for one rate."""

    analysis: Tensor  # X to s, complex [k, cell]
    side: Tensor  # Y to its components, complex [m, cell]
    basis: Tensor  # Z of its components, complex [cell, t]
    mixture: Mixture


class LawRate(Rate):
    """What a rate has for itself, with the components of X that its latents are made of, and its words of."""

    transform: Tensor  # latents of the law to components, pairs [k, L, 2]
    noise: Tensor  # variance that words leave of each component, over its unit variance, as noise added to it, [k]

    def __init__(self, config: GDCSIConfig, rate: int) -> None:
        super().__init__(config, rate)
        numbers = self.latents.out_features
        sent = min(6 + rate // 7, config.latents, numbers // 2)
        zeroed(self.latents)  # what the network adds to the linear latents
        self.linear = nn.Linear(2 * sent, numbers, bias=False)
        self.levels = nn.Linear(numbers, 2 * sent)
        self.register_buffer("transform", torch.zeros(sent, config.latents, 2))
        self.register_buffer("noise", torch.ones(sent))

    @torch.no_grad()
    def fit(self, law: Law, rate: int) -> None:
        """Start as a linear code: latents, the codebooks of them, and the way back.

        :param law: complex128
        """
        cells = len(law.basis)
        unit = law._replace(target=law.target * (math.sqrt(cells) / law.target.norm()))  # as klt-grid fits it
        with torch.enable_grad():
            rows, variances = fit_transform(unit, TEST_CHANNEL * rate, STEPS)
        kept = min(len(rows), len(self.noise))
        rows, variances = rows[:kept], variances[:kept].float()
        bits = waterfilled(variances, rate)
        place = spread_over(bits.repeat_interleave(2) / 2, self.codebooks.widths, self.words.in_features)
        used = place >= 0
        root = variances.sqrt().repeat_interleave(2)
        root = root / root.square().mean().sqrt()  # latents weigh a component by what it is worth
        self.linear.weight.zero_()
        self.linear.weight[used.nonzero()[:, 0], place[used]] = root[place[used]]

        generator = torch.Generator().manual_seed(rate)
        w = torch.randn(2 * DRAWS, rows.shape[1], dtype=torch.complex64, generator=generator)
        s = torch.view_as_real(w @ rows.to(torch.complex64).mT).flatten(1)
        latents = nn.functional.pad(s, (0, self.linear.in_features - s.shape[1])) @ self.linear.weight.mT
        latents = latents.unflatten(1, (len(self.codebooks.widths), -1))
        self.codebooks.words.zero_()
        for number, width in enumerate(self.codebooks.widths):
            self.codebooks.words[number, : 2**width] = lloyd(latents[:DRAWS, number], 2**width, generator)
        fresh = latents[DRAWS:]
        words = torch.cat([self.codebooks(self.codebooks.codes(part)) for part in fresh.split(1024)])
        sent = torch.zeros_like(s[DRAWS:])
        sent[:, place[used]] = words.flatten(1)[:, used] / root[place[used]]
        open_ = (sent - s[DRAWS:]).square().mean(0).unflatten(0, (-1, 2)).sum(1).clamp(max=MOST_NOISE)  # E|s|^2 = 1
        self.levels.weight.zero_()
        self.levels.bias.zero_()
        back = 1 / (root * (1 - open_).repeat_interleave(2))  # words are means of s: noise is independent of s so
        self.levels.weight[place[used], used.nonzero()[:, 0]] = back[place[used]]
        self.noise.fill_(1.0)
        self.noise[:kept] = open_ / (1 - open_)
        self.transform.zero_()
        self.transform[:kept] = torch.view_as_real(rows)


def waterfilled(variances: Tensor, bits: float) -> Tensor:
    """Bits of complex Gaussian components that leave the least total error, by bisection of the error of each: [component]."""
    logarithms = variances.double().clamp(min=1e-30).log2()
    low, high = float(logarithms.min()) - bits, float(logarithms.max())
    for _ in range(100):
        level = (low + high) / 2
        low, high = (level, high) if float((logarithms - level).clamp(min=0).sum()) > bits else (low, level)
    return (logarithms - low).clamp(min=0)


def spread_over(bits: Tensor, widths: tuple[int, ...], numbers: int) -> Tensor:
    """Give each code about its width of bits, strong components first, to the code that has the most left.

    :param bits: of each real component
    :param widths: of the codes
    :param numbers: of all codes, the same for each
    :returns: the component at each number, -1 where there is none, int64 [numbers]
    """
    size = numbers // len(widths)
    place, left, held = torch.full((len(widths), size), -1), list(map(float, widths)), [0] * len(widths)
    for component in torch.argsort(bits, descending=True, stable=True).tolist():
        free = [code for code in range(len(widths)) if held[code] < size]
        if not free or float(bits[component]) <= 0:
            break
        code = max(free, key=left.__getitem__)
        place[code, held[code]] = component
        left[code] -= float(bits[component])
        held[code] += 1
    return place.flatten()


def lloyd(samples: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Words of least squared error by Lloyd's algorithm: samples [n, size] to words [count, size]."""
    words = samples[torch.randperm(len(samples), generator=generator)[:count]].clone()
    for _ in range(ROUNDS):
        nearest = (words.square().sum(1) - 2 * samples @ words.mT).argmin(1)
        members = torch.bincount(nearest, minlength=count)
        total = torch.zeros_like(words).index_add_(0, nearest, samples)
        words = torch.where(members[:, None] > 0, total / members.clamp(min=1)[:, None], words)
    return words


class LawBackbone(DenseBackbone):
    """See the top of this file."""

    roots: Tensor
    cluster: Tensor
    downlink_taps: Tensor
    uplink_taps: Tensor
    correlation: Tensor

    def __init__(self, config: GDCSIConfig) -> None:
        super().__init__(config)
        self.rates = nn.ModuleDict({str(rate): LawRate(config, rate) for rate in config.shared})
        self.mean = nn.Linear(self.enter.in_features, config.width, bias=False)
        c, latents = config.clusters, config.latents
        self.register_buffer("roots", torch.zeros(latents, config.angles, 2))  # in units of the model's scale
        self.register_buffer("cluster", torch.zeros(latents, dtype=torch.int64))
        self.register_buffer("downlink_taps", torch.zeros(c, config.delays, 2))
        self.register_buffer("uplink_taps", torch.zeros(c, config.delays, 2))
        self.register_buffer("correlation", torch.zeros(config.velocities, c, 2))
        self._tables: dict[int, Tables] = {}  # made when first needed, and anew when weights are loaded or moved
        self.register_load_state_dict_post_hook(lambda net, _: net._tables.clear())

    def know(self, statistics: Statistics, scale: float) -> None:
        """Take the law of the samples, and start every rate from it.

        :param scale: of the model
        """
        store = {
            "roots": statistics.roots / scale, "downlink_taps": statistics.downlink_taps, "uplink_taps": statistics.uplink_taps,
            "correlation": statistics.correlation,
        }  # fmt: skip
        for name, value in store.items():
            self.get_buffer(name).copy_(_pairs(value))
        self.cluster.copy_(torch.from_numpy(np.asarray(statistics.cluster)))
        law = self._law()
        for rate in self.config.shared:
            self._rate(rate).fit(law, rate)
        self._tables.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._tables.clear()
        return super()._apply(fn, recurse)

    @property
    def _kind(self) -> torch.dtype:
        return torch.complex128 if self.spread.dtype == torch.float64 else torch.complex64

    def _law(self) -> Law:
        roots, down, up, chi = (
            torch.view_as_complex(part.double().contiguous())
            for part in (self.roots, self.downlink_taps, self.uplink_taps, self.correlation)
        )
        downlink, uplink = (torch.einsum("la,ld->adl", roots, taps[self.cluster]).flatten(0, 1) for taps in (down, up))
        config = self.config
        return Law.of(
            downlink, uplink, chi[:, self.cluster], config.side_information_components, config.side_information_snr_db
        )

    def _tables_of(self, rate: int) -> Tables:
        if rate not in self._tables:
            with torch.inference_mode(False), torch.no_grad():
                law, part, kind = self._law(), self._rate(rate), self._kind
                transform = torch.view_as_complex(part.transform.double().contiguous())
                inverse = (law.target / law.target.abs().square().sum(1)[:, None]).mH @ law.basis.mH  # X to latents
                self._tables[rate] = Tables(
                    (transform @ inverse).to(kind), law.side.to(kind), law.basis.to(kind),
                    Mixture.of(law, transform, part.noise.double()).to(kind),
                )  # fmt: skip
        return self._tables[rate]

    # UE ------------------------------------------------------------------------------------------------------------------

    def _latents(self, x: Tensor, frame: Tensor, rate: int) -> Tensor:
        part = self._rate(rate)
        return self._of_both(x, self.encoder(self.enter(self._numbers(x)) + part.told), rate)

    def _of_both(self, x: Tensor, hidden: Tensor, rate: int) -> Tensor:
        """Latents, the linear ones and what the network adds: [n, code, size]."""
        part = self._rate(rate)
        with torch.autocast(x.device.type, enabled=False):
            s = torch.view_as_real(_complex(x, self._kind) @ self._tables_of(rate).analysis.mT).flatten(1)
            linear = part.linear(s.to(part.linear.weight.dtype))
        return (linear + part.latents(hidden)).unflatten(1, (-1, self.config.code_size))

    # base station --------------------------------------------------------------------------------------------------------

    def context(self, codes: Tensor, y: Tensor | None, rate: int) -> Context:  # type: ignore[override]
        part = self._rate(rate)
        words = part.codebooks(codes).flatten(1)
        assert y is not None  # the config says so
        means = [self._mean(few, beside, rate) for few, beside in zip(words.split(PART), y.split(PART), strict=True)]
        return self._behind(part.words(words), torch.cat(means), y)

    def _mean(self, words: Tensor, y: Tensor, rate: int) -> Tensor:
        """Conditional mean of Z as an image, of words [n, numbers] and the image of Y."""
        part, tables, kind = self._rate(rate), self._tables_of(rate), self._kind
        with torch.autocast(y.device.type, enabled=False):
            s = part.levels(words.to(part.levels.weight.dtype)).to(kind.to_real())
            o = torch.view_as_complex(s.unflatten(1, (-1, 2)).contiguous())
            z = tables.mixture(o, _complex(y, kind) @ tables.side.mT) @ tables.basis.mT
            image = torch.stack((z.real, z.imag), 1)
        return image.unflatten(2, (self.config.angles, self.config.delays)).to(y.dtype)

    def _behind(self, told: Tensor, mean: Tensor, y: Tensor) -> Context:
        framing = Framing(None, None)
        return Context(self._with_side(told, y, framing) + self.mean(self._numbers(mean)), framing, mean)

    def denoise(self, z: Tensor, context: Context, time: Tensor) -> Tensor:  # type: ignore[override]
        return REST * super().denoise(z, context, time)  # type: ignore[arg-type]

    def hidden(self, image: Tensor, context: Context) -> Tensor:  # type: ignore[override]
        return image - context.mean

    def image(self, z: Tensor, context: Context) -> Tensor:  # type: ignore[override]
        return context.mean + z

    # training ------------------------------------------------------------------------------------------------------------

    def quantise(self, x: Tensor, y: Tensor | None, seen: Mapping[str, Tensor]) -> tuple[Context, Tensor, Tensor]:  # type: ignore[override]
        assert y is not None
        shares = [len(share) for share in torch.arange(len(x)).tensor_split(len(self.rates))]
        rates = self.config.shared
        starts = torch.cat([self._rate(rate).told.expand(share, -1) for rate, share in zip(rates, shares, strict=True)])
        trunk = self.encoder(self.enter(self._numbers(x)) + starts).split(shares)
        told, means, losses = [], [], []
        for rate, hidden, own, beside in zip(rates, trunk, x.split(shares), y.split(shares), strict=True):
            part = self._rate(rate)
            words, cost = part.codebooks.quantise(self._of_both(own, hidden, rate))
            told.append(part.words(words.flatten(1)))
            means.append(self._mean(words.flatten(1), beside, rate))
            losses.append(cost)
        number = torch.arange(len(rates)).repeat_interleave(torch.tensor(shares)).to(x.device)
        return self._behind(torch.cat(told), torch.cat(means), y), torch.stack(losses).mean(), number

    # of a rate -----------------------------------------------------------------------------------------------------------

    def _rate(self, rate: int) -> LawRate:
        part = self.rates[str(rate)]
        assert isinstance(part, LawRate)
        return part


def sizes(statistics: Statistics) -> dict[str, int]:
    """Fields of the config that a law settles."""
    velocities, clusters = statistics.correlation.shape
    return {"velocities": velocities, "clusters": clusters, "latents": len(statistics.roots)}


def _pairs(value: Array) -> Tensor:
    return torch.view_as_real(torch.from_numpy(np.ascontiguousarray(value, complex)))


def _complex(image: Tensor, kind: torch.dtype) -> Tensor:
    """Images [n, 2, angle, delay] as rows of complex cells."""
    wide = image.to(kind.to_real()).flatten(2)
    return torch.complex(wide[:, 0], wide[:, 1])
