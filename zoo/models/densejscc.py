"""RD-JSCC of dense layers, for CPU cores: a light first look at what arrives, and residual diffusion that does the work behind it.

    x -- place, level --> aligned, of unit power: linear (+) place, level, SNR -- blocks -- linear --> symbols
    s^, which were sent, SNR -- linear -- block --> look;   look -- head --> H^, place, level                       steps = 0 ends here
    z_N = sqrt(alpha-bar_N) H^ + sqrt(1 - alpha-bar_N) eps                                                                          (5)
    for t = N ... 1:  look (+) linear(z) (+) time -- blocks -- head --> z^_0, place, level;  z = k_t z^_0 + m_t z                   (7)

Source of the method: S. K. Ankireddy, H. Kim and H. Kim, "Residual Diffusion Models for Variable-Rate Joint Source Channel Coding of
MIMO CSI" (RD-JSCC); equation numbers are its, and :mod:`zoo.models.rdjscc` has the paper's own networks. The algorithm is the paper's:
variable rate by prefixes, an estimate of the autoencoder, and a denoiser that starts from it. What is changed: layers are dense; the
encoder moves the strongest delay to one place and sends the place in the symbols themselves; the first look is light, for behind a
decoder that has used up what the symbols tell there is nothing to refine; and encoder, look and denoiser are trained together, for the
answers after 0, 1 and 2 steps, through the sampler.

Every cell is divided by its own standard deviation where it enters and multiplied by it where it leaves; diffusion runs in between.
The place is decided by a head of the network; training minimises the error in expectation over its decision.

The siblings to compare with are the same layers: ``refinement = "generative"`` starts from noise alone (GD-JSCC), ``"direct"`` has the
denoiser called once without noise and time (U-Net-JSCC), none is an autoencoder of all the blocks (ADJSCC, and CSINet+ JSCC where it is not
told the SNR).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo.models.base import energy, relative_error
from zoo.models.jscc import JSCCConfig, wide
from zoo.models.refining import RefiningJSCC
from zoo.models.unetjscc import shared
from zoo.nn.dense import Stack
from zoo.nn.diffusion import ddim_step
from zoo.nn.frame import HOME, level_of, rolled, strongest
from zoo.nn.residual_diffusion import alpha_bar_at, visited
from zoo.nn.snr_gate import UNIT_DB
from zoo.nn.start import zeroed
from zoo.uplink import transmit, unit_power

MOST_STEPS = 100  # of refinement that a decoder may be asked for
FLOOR = 0.05  # added to a cell's standard deviation, over the mean one
FEATURES = 64  # numbers of the SNR's and the time's embedding
LOOK_WEIGHT = 0.2  # of the first look's error in the loss
LEVEL_WEIGHT = 0.02  # of the level's error [octaves]: where levels span decades, what knows none learns to answer zero, and stays there
PLACE_WEIGHT = 0.02  # of the cross entropy of the place
SPAN = 8.0  # log2 of the level, over its mean one, is told within this much
SEARCHES = (0, 5, 20)  # gradient steps on the symbols, by effort
PACE = 0.05  # learning rate of those steps
JUDGES = 4  # links that symbols are judged by, before and after those steps
SEARCH_SEED = 0


class DenseJSCCConfig(JSCCConfig):
    """Sizes that a CPU core trains."""

    refinement: Literal["residual", "generative", "direct"] | None = Field(
        "residual",
        description="what is behind the first look: RD-JSCC, GD-JSCC, a network without diffusion; none: nothing",
    )
    told_snr: bool = Field(True, description="both ends are told the SNR of the link")
    align: bool = Field(True, description="the strongest delay is moved to one place, and its place is sent")
    taps: int | None = Field(None, ge=1, description="delays that networks see, the first ones; none: all")
    width: int = Field(512, ge=8, description="numbers between blocks")
    hidden: int = Field(640, ge=8, description="numbers within a block")
    encoder_blocks: int = Field(3, ge=0, description="blocks of the encoder")
    look_blocks: int = Field(1, ge=0, description="blocks of the first look")
    denoiser_blocks: int = Field(
        4, ge=0, description="blocks behind it; without refinement they belong to the first look"
    )
    steps: int = Field(20, ge=1, le=1000, description="T of the cosine schedule")
    start: int = Field(10, ge=1, description="N, the time at which refinement starts")
    decoding_steps: int = Field(2, ge=0, le=MOST_STEPS, description="of the decoder where none are asked for")
    effort: int = Field(0, ge=0, lt=len(SEARCHES), description="of the encoder where none is asked for")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start > self.steps:
            raise ValueError(f"start {self.start} exceeds the {self.steps} steps of the schedule")
        if self.taps is not None and self.taps > self.delays:
            raise ValueError(f"taps {self.taps} exceed the {self.delays} delays of a sample")
        if self.refinement == "direct" and self.decoding_steps != 1:
            raise ValueError("refinement direct is one step: decoding_steps = 1")
        if self.refinement is None and self.decoding_steps != 0:
            raise ValueError("without refinement there are no steps: decoding_steps = 0")
        return self


class Answer(NamedTuple):
    """What a decoder makes of what has arrived."""

    cells: Tensor  # aligned, over the standard deviations, [n, numbers]
    place: Tensor | None  # scores of each place, [n, delay]; None where samples are not aligned
    level: Tensor  # log2 of a sample's level over the mean one, [n]


class Head(nn.Module):
    """From what runs between blocks to an answer; it starts at zero."""

    def __init__(self, config: DenseJSCCConfig, numbers: int) -> None:
        super().__init__()
        self.cells = zeroed(nn.Linear(config.width, numbers))
        self.place = zeroed(nn.Linear(config.width, config.delays)) if config.align else None
        self.level = zeroed(nn.Linear(config.width, 1))

    def forward(self, hidden: Tensor) -> Answer:
        place = None if self.place is None else wide(self.place(hidden))
        return Answer(wide(self.cells(hidden)), place, wide(self.level(hidden))[:, 0])


class Scalar(nn.Sequential):
    """A number a sample, [n], as something to add between blocks, [n, width]."""

    def __init__(self, width: int) -> None:
        super().__init__(nn.Linear(1, FEATURES), nn.GELU(), nn.Linear(FEATURES, width))

    def forward(self, values: Tensor) -> Tensor:
        embedded: Tensor = super().forward(values[:, None])
        return embedded


class Sender(nn.Module):
    """Aligned cells, place, level and SNR to symbols."""

    def __init__(self, config: DenseJSCCConfig, numbers: int) -> None:
        super().__init__()
        self.enter = nn.Linear(numbers, config.width)
        self.place = nn.Embedding(config.delays, config.width) if config.align else None
        self.level, self.snr = Scalar(config.width), Scalar(config.width)
        self.blocks = Stack(config.width, config.hidden, config.encoder_blocks)
        self.leave = nn.Linear(config.width, 2 * config.longest)

    def forward(self, cells: Tensor, place: Tensor | None, level: Tensor, snr_db: Tensor) -> Tensor:
        told = self.enter(cells) + self.level(level / SPAN) + self.snr(snr_db / UNIT_DB)
        if self.place is not None and place is not None:
            told = told + self.place(place)
        return self.leave(self.blocks(told)).unflatten(1, (-1, 2))


class Look(nn.Module):
    """Received symbols and SNR to what runs between blocks."""

    def __init__(self, config: DenseJSCCConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(3 * config.longest, config.width)
        self.snr = Scalar(config.width)
        more = config.denoiser_blocks if config.refinement is None else 0
        self.blocks = Stack(config.width, config.hidden, config.look_blocks + more)

    def forward(self, pairs: Tensor, snr_db: Tensor) -> Tensor:
        sent = (pairs.square().sum(2) > 0).to(pairs.dtype)
        told = self.enter(torch.cat((pairs.flatten(1), sent), 1)) + self.snr(snr_db / UNIT_DB)
        hidden: Tensor = self.blocks(told)
        return hidden


class Denoiser(nn.Module):
    """The first look, z_t and the time to what runs between blocks, as something to add to the look."""

    def __init__(self, config: DenseJSCCConfig, numbers: int) -> None:
        super().__init__()
        diffuses = config.refinement != "direct"
        self.noisy = nn.Linear(numbers, config.width, bias=False) if diffuses else None
        self.time = Scalar(config.width) if diffuses else None
        self.blocks = Stack(config.width, config.hidden, config.denoiser_blocks)

    def forward(self, look: Tensor, z: Tensor | None, time: Tensor | None) -> Tensor:
        told = look
        if self.noisy is not None and self.time is not None and z is not None and time is not None:
            told = told + self.noisy(z) + self.time(time)
        hidden: Tensor = self.blocks(told)
        return hidden


class DenseJSCC(RefiningJSCC[DenseJSCCConfig]):
    """Families ``rd-jscc``, and by ``refinement`` its siblings of the same size."""

    Config = DenseJSCCConfig
    spread: Tensor  # standard deviation of each cell of aligned samples of level one, and some more, [angle, tap]
    usual: Tensor  # mean log2 of a sample's level, a scalar
    noise: Tensor  # eps of eq. (5), [numbers]

    def __init__(self, config: DenseJSCCConfig) -> None:
        super().__init__(config)
        self.taps = config.taps or config.delays
        numbers = 2 * config.angles * self.taps
        self.sender, self.look, self.head = Sender(config, numbers), Look(config), Head(config, numbers)
        self.denoiser = Denoiser(config, numbers) if config.refinement is not None else None
        self.register_buffer("spread", torch.ones(config.angles, self.taps))
        self.register_buffer("usual", torch.zeros(()))
        self.register_buffer("noise", torch.randn(numbers))
        self.default_steps = config.decoding_steps
        self.steps = {None: (0, 0), "direct": (0, 1)}.get(config.refinement, (0, MOST_STEPS))
        self.starts_at = config.steps if config.refinement == "generative" else config.start

    @classmethod
    def about(cls, fields: Mapping[str, Any]) -> str:
        kind = fields.get("refinement", "residual")
        what = {
            "residual": "RD-JSCC's algorithm with dense networks: a light first look at the symbols, and residual diffusion behind it",
            "generative": "GD-JSCC's algorithm with dense networks: a light first look at the symbols, and diffusion from noise behind it",
            "direct": "A dense autoencoder over the link with a network behind its first look, without diffusion",
            None: "A dense autoencoder over the link",
        }
        aligned = ", the strongest delay moved to one place" if fields.get("align", True) else ""
        return f"{what[kind]}; trained end to end{aligned}. Not the paper's own networks: those are the -paper recipes."

    # what samples are, and what is made of them ------------------------------------------------------------------------------

    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        image = self.to_image(x)
        level = level_of(image)
        some = level > 0
        self.usual.copy_(level[some].log2().mean() if bool(some.any()) else torch.zeros(()))
        still = (image[some] / level[some, None, None, None]) if bool(some.any()) else image
        still = self._aligned(still, strongest(still))
        power = still[..., : self.taps].square().sum(1).mean(0)
        self.spread.copy_(power.sqrt() + FLOOR * power.sqrt().mean())

    def _aligned(self, image: Tensor, place: Tensor) -> Tensor:
        return rolled(image, self.config.delays // HOME - place) if self.config.align else image

    def _told(self, snr_db: Tensor) -> Tensor:
        return snr_db if self.config.told_snr else torch.zeros_like(snr_db)

    def latent(self, image: Tensor, snr_db: Tensor) -> Tensor:
        place, level = strongest(image), level_of(image)
        still = self._aligned(image / level.clamp(min=torch.finfo(torch.float32).tiny)[:, None, None, None], place)
        cells = (still[..., : self.taps] / self.spread).flatten(1)
        pairs: Tensor = self.sender(cells, place, self._level(image), self._told(snr_db))
        return pairs

    def _level(self, image: Tensor) -> Tensor:
        """Log2 of samples' levels over the mean one, [n]."""
        return (level_of(image).log2() - self.usual).clamp(-SPAN, SPAN).to(image.dtype)

    def answers(self, pairs: Tensor, snr_db: Tensor, steps: int) -> list[Answer]:
        """Answer after 0, 1 ... of some steps; the last of them is what a decoder of so many steps says.

        :param pairs: received, [n, k, 2]; symbols that are zero, or beyond k, were not sent
        """
        look = self.look(self.padded(pairs), self._told(snr_db))
        found = [self.head(look)]
        if steps == 0 or self.denoiser is None:
            return found
        if self.config.refinement == "direct":
            return [*found, self.head(self.denoiser(look, None, None))]
        level = alpha_bar_at(self.starts_at, self.config.steps)
        z = (1 - level) ** 0.5 * self.noise.to(found[0].cells.dtype).expand_as(found[0].cells)
        if self.config.refinement == "residual":
            z = level**0.5 * found[0].cells + z  # eq. (5)
        times = (*visited(self.starts_at, steps), 0.0)
        for time, following in itertools.pairwise(times):
            now = z.new_full((len(z),), time / self.config.steps)
            answer = self.head(self.denoiser(look, z, now))
            found.append(answer)
            z = ddim_step(
                z, answer.cells, alpha_bar_at(time, self.config.steps), alpha_bar_at(following, self.config.steps)
            )
        return found

    def aligned_image(self, answer: Answer) -> Tensor:
        """An answer as an image whose strongest delay is where it is moved to, [n, 2, angle, delay]."""
        image = answer.cells.unflatten(1, (2, self.config.angles, self.taps)) * self.spread
        image = image * torch.exp2(SPAN * torch.tanh(answer.level / SPAN) + self.usual)[:, None, None, None]
        return nn.functional.pad(image, (0, self.config.delays - self.taps))

    def estimate(self, received: Tensor, snr_db: Tensor, steps: int) -> Tensor:
        answer = self.answers(received, snr_db, steps)[-1]
        image = self.aligned_image(answer)
        if answer.place is None:
            return image
        return rolled(image, answer.place.argmax(1) - self.config.delays // HOME)

    # the encoder's search ----------------------------------------------------------------------------------------------------

    @property
    def efforts(self) -> int:
        return len(SEARCHES)

    @property
    def default_effort(self) -> int:
        return self.config.effort

    def searched(self, image: Tensor, pairs: Tensor, snr_db: Tensor, effort: int) -> Tensor:
        """Turn symbols by gradient steps on the expected error behind link and decoder, which the encoder has.

        Links are drawn by a seed of their own. What is no better in the end, over links that were not used, stays as it was.
        """
        with torch.inference_mode(False), torch.enable_grad():
            image, snr_db, start = image.clone(), snr_db.clone(), pairs.clone()
            generator = torch.Generator(self.device).manual_seed(SEARCH_SEED)

            def error(tried: Tensor) -> Tensor:
                nothing = torch.zeros(tried.shape[:2], dtype=torch.complex64, device=self.device)
                noise = torch.view_as_real(transmit(nothing, snr_db, channel=self.channel, generator=generator).symbols)
                answer = self.answers(unit_power(tried) + noise, snr_db, self.default_steps)[-1]
                return self._expected_error(answer, image)

            turned = start.clone().requires_grad_()
            adam = torch.optim.Adam([turned], lr=PACE, betas=(0.9, 0.95))
            for _ in range(SEARCHES[effort]):
                (gradient,) = torch.autograd.grad(error(turned).sum(), turned)
                turned.grad = gradient
                adam.step()
            with torch.no_grad():
                sums = []
                for tried in (start, turned):
                    generator.manual_seed(SEARCH_SEED + 1)
                    sums.append(torch.stack([error(tried) for _ in range(JUDGES)]).sum(0))
                better = (sums[1] < sums[0])[:, None, None]
                return torch.where(better, unit_power(turned), unit_power(start))

    # training ----------------------------------------------------------------------------------------------------------------

    def _expected_error(self, answer: Answer, image: Tensor) -> Tensor:
        """Error over a sample's energy, [n], in expectation over the place that is decided; a wrong one leaves nothing in common."""
        place = strongest(image)
        told = self.aligned_image(answer)
        right = relative_error(told, self._aligned(image, place))
        if answer.place is None:
            return right
        sure = answer.place.softmax(1).gather(1, place[:, None])[:, 0]
        own, size = energy(image), energy(told)
        # who knows no place yet would learn to answer zero, and stay there
        size = torch.where(sure > 0.5, size, size.detach())
        wrong = 1 + size / own.clamp(min=torch.finfo(own.dtype).tiny)
        return sure * right + (1 - sure) * torch.where(own > 0, wrong, 0)

    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        arrived, place = shared(self.received(x, draws), draws["turn"]), strongest(x)
        errors, doubts, missed = list[list[Tensor]](), list[Tensor](), list[Tensor]()
        for steps, part in self._lessons(len(x)):
            for number, answer in enumerate(self.answers(arrived[part], draws["snr_db"][part], steps)):
                if number == len(errors):
                    errors.append([])
                errors[number].append(self._expected_error(answer, x[part]))
                missed.append(nn.functional.smooth_l1_loss(answer.level, self._level(x[part]).float()))
                if answer.place is not None:
                    doubts.append(nn.functional.cross_entropy(answer.place, place[part]))
        means = [torch.cat(error).mean() for error in errors]
        loss = torch.stack(means[1:]).mean() + LOOK_WEIGHT * means[0] if len(means) > 1 else means[0]
        loss = loss + LEVEL_WEIGHT * torch.stack(missed).mean()
        if doubts:
            loss = loss + PLACE_WEIGHT * torch.stack(doubts).mean()
        return loss, {f"error_{steps}": error for steps, error in enumerate(means)}

    def _lessons(self, n: int) -> list[tuple[int, slice]]:
        """In how many steps which samples of a batch are decoded: half of them in one, half in two, where there are two."""
        most = min(self.default_steps, 2)
        return [(most, slice(0, n))] if most < 2 else [(2, slice(0, n // 2)), (1, slice(n // 2, n))]
