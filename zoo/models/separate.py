"""Source and channel codes apart: payloads of a codec behind a polar code with a CRC, as phones report CSI in 5G.

    UE            x --codec--> payload --spare bits, CRC, polar code--> bits --QAM, unit power--> k symbols
    base station  received --demapper--> LLRs --list decoder--> CRC holds:  payload --codec--> x^
                                                                CRC fails, or nothing was sent: 0, the mean

How many bits a block carries, and in which modulation, stands in a table by k and the stated SNR, which both ends hold: what left least
error when blocks were sent over flat Rayleigh fading, at fitting. Only the symbols tell anything of the sample.

A row of QAM symbols has a power of its own, which unit power takes from it and no receiver knows. The phone therefore sets some spare bits
of the block so that this power is next to one.

Source: 3GPP TS 38.212, section 5.1 (CRC11), 5.3.1 and 5.4.1 (polar code and its rate matching), 6.3.1 (CSI reports); TS 38.211, section 5.1
(modulation). Sionna's implementation of them is used.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from zoo.config import Training, explain
from zoo.covariances import Covariances, as_arrays
from zoo.data import Batch, Source
from zoo.errors import ZooError
from zoo.models.base import Codec, Fitted, relative_error
from zoo.models.jscc import JSCC, JSCCConfig
from zoo.models.klt import KLT, KLTConfig
from zoo.models.profile_code import ProfileCode, ProfileCodeConfig, Sent
from zoo.nn import bits as bytes_of
from zoo.nn.lloyd_max import allocate
from zoo.uplink import ANTENNAS, Rayleigh, transmit, unit_power

SAMPLES = 20_000  # that the codec is fitted on, where the recipe does not say
TRIAL_SAMPLES = 512  # of the val split, that each rate's error is measured on
NOISE = 1 / (ANTENNAS - 1)  # E[1 / ||h||^2] of Rayleigh fading: the combined noise at 0 dB an antenna
CRC, LIST = 11, 8  # bits; paths of the decoder. A block of noise alone passes with a chance of at most LIST / 2^CRC
FEWEST = 20  # bits of a block that get this CRC
SHORTEST, LONGEST = 18, 1088  # coded bits of a block
ORDERS = (1, 2, 4, 6, 8)  # bits a symbol: BPSK, QPSK, 16-, 64- and 256-QAM
SPARE = 3  # bits of a block that set its power, where the modulation has several
FULLEST = 0.92  # share of the coded bits that are not redundant, at most
ORDERS_TRIED = 2  # modulations, the smallest that can take a payload
MOST_LOST = 0.5  # share of blocks; where more are lost, nothing is sent
MISSES = 2  # rates in a row that bring nothing, after which higher ones are not tried
FIRST_BLOCKS = 100  # that a trial takes before it is given up
NOTHING = -1  # in place of a payload's number: nothing is sent
KLT_RATES = (20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 192, 224, 256)
PROFILE_RATES = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256)


class SeparateConfig(JSCCConfig):
    """SNRs outside of ``snr_db`` are taken for its ends; others for the whole decibel below."""

    inner: Literal["profile-code", "klt"] = Field("profile-code", description="codec whose payloads are sent")
    rates: tuple[int, ...] = Field((), description="bits of a payload to choose from; empty: a usual choice")
    profiles: int = Field(512, ge=2, le=4096, description="of profile-code")
    shifts: int = Field(8, ge=1, description="of profile-code")
    widths: tuple[tuple[int, ...], ...] = Field((), description="of klt, those of each rate; fitted")
    blocks: int = Field(400, ge=1, description="sent to measure a block error rate at fitting")

    @model_validator(mode="after")
    def _rates_rise(self) -> Self:
        if list(self.rates) != sorted(set(self.rates)):
            raise ValueError(f"rates {self.rates} must rise")
        least = FEWEST if self.inner == "klt" else ShortProfileCodeConfig.LEAST
        if self.offered[0] < least:
            raise ValueError(f"rates {self.rates} must be {least} and up")
        if self.widths and tuple(map(sum, self.widths)) != self.offered:
            raise ValueError("widths must add up to the rates")
        return self

    @property
    def offered(self) -> tuple[int, ...]:
        """Bits of a payload to choose from."""
        return self.rates or (KLT_RATES if self.inner == "klt" else PROFILE_RATES)


class ShortProfileCodeConfig(ProfileCodeConfig):
    """Of payloads that some samples' headers do not fit."""

    LEAST: ClassVar[int] = 32

    rate: int = Field(128, ge=LEAST, description="bits of a payload")


class ShortProfileCode(ProfileCode):
    """Profile code of short payloads, too: a sample whose header does not fit is sent as the likeliest one, without cells."""

    Config = ShortProfileCodeConfig

    def codes(self, x: Tensor) -> Tensor:
        sent = self.decide(x)
        bits, fits = self._encode(sent)
        while len(again := np.flatnonzero(~fits)):
            coarser = self.decide(x[again], finest=(sent.step[again] - 1).clamp(min=0))
            coarser.put(sent.step[again] == 0, self._blank(int((sent.step[again] == 0).sum())))
            sent.put(again, coarser)
            bits[again], fits[again] = self._encode(coarser)
        return torch.from_numpy(bits)

    def _blank(self, n: int) -> Sent:
        """The cheapest samples: nothing of them is coded but the likeliest header."""
        config, likeliest = self.config, [int(row.argmax()) for row in self._header()[:3]]
        profile, shift, level, step = (torch.full((n,), value) for value in (*likeliest, 0))
        return Sent(profile, shift, level, step, torch.zeros(n, 2, config.angles, config.delays, dtype=torch.int16))

    def holds_blanks(self) -> bool:
        """Whether the cheapest sample fits the payload, without which no payload of this rate can be promised."""
        return bool(self.fits(self._blank(1)).all())


class Format(NamedTuple):
    """What a block carries."""

    number: int  # of the payload's rate
    payload: int  # bits
    order: int  # bits a symbol
    symbols: int  # k

    @property
    def spare(self) -> int:
        """Bits that set the row's power."""
        return SPARE if self.order > 2 else 0

    @property
    def information(self) -> int:
        """Bits before the CRC."""
        return self.payload + self.spare

    @property
    def coded(self) -> int:
        """Bits behind the polar code."""
        return self.order * self.symbols

    @property
    def possible(self) -> bool:
        """Whether the code has such a block."""
        whole = self.information + CRC
        return self.information >= FEWEST and SHORTEST <= self.coded <= LONGEST and whole <= FULLEST * self.coded


class Separate(JSCC[SeparateConfig], Fitted[SeparateConfig]):
    """Family ``separate``. Make one with :meth:`fit`."""

    Config = SeparateConfig
    in_blocks = True
    choice: Tensor  # number of the payload's rate, or NOTHING, and bits a symbol, int16 [k, level, 2]
    block_errors: Tensor  # block error rate that was measured at it, [k, level]
    distortion: Tensor  # error over energy of each payload that arrives, [rate]

    def __init__(self, config: SeparateConfig) -> None:
        super().__init__(config)
        size, offered = (len(config.symbols), len(self.levels())), config.offered
        shape: dict[str, Any] = {"angles": config.angles, "delays": config.delays, "side_information": False}
        if config.inner == "klt":
            widths = config.widths[-1] if config.widths else ()  # none before the fit
            options: dict[str, Any] = {"side_information_components": 0, "rate": sum(widths), "widths": widths}
            self.inner: KLT | ShortProfileCode = KLT(KLTConfig.model_construct(**{**shape, **options}))
        else:
            profile = {"profiles": config.profiles, "shifts": config.shifts, "rate": offered[-1], "rates": offered}
            self.inner = ShortProfileCode(ShortProfileCodeConfig.model_validate({**shape, **profile}))
        self.register_buffer("choice", torch.tensor((NOTHING, 1), dtype=torch.int16).repeat(*size, 1))
        self.register_buffer("block_errors", torch.zeros(size))
        self.register_buffer("distortion", torch.ones(len(offered)))

    @classmethod
    def about(cls, fields: Mapping[str, Any]) -> str:
        inner = fields.get("inner", cls.Config.model_fields["inner"].default)
        return f"Source and channel codes apart: payloads of {inner} behind the polar code and CRC of 5G, by a table of the stated SNR."

    def levels(self) -> range:
        """The decibels that the table has."""
        low, high = self.config.snr_db
        return range(round(low), round(high) + 1)

    def format(self, k: int, snr_db: float) -> Format | None:
        """What a block carries at an SNR; None where nothing is sent.

        :param k: channel uses
        :param snr_db: of one antenna
        :raises ZooError: a k that the model does not serve, or an SNR that is no number
        """
        return self._format(self._served(k), int(self._level(self._snr(snr_db, 1))[0]))

    def codec(self, number: int) -> Codec[Any]:
        """The codec of one of the rates.

        :param number: 0 for the lowest
        """
        if isinstance(self.inner, ShortProfileCode):
            return self.inner.at(self.config.offered[number])
        largest, widths = self.inner, self.config.widths[number]
        single = KLT(largest.config.model_copy(update={"rate": sum(widths), "widths": widths}))
        single = single.to(self.device, self.scale.dtype)
        single.scale.copy_(largest.scale)
        single.analysis.copy_(largest.analysis[: len(single.analysis)])  # the strongest components, at any rate
        single.estimator.copy_(largest.estimator[:, : len(single.analysis)])
        return single

    def _level(self, snr_db: Tensor) -> Tensor:
        """Rows of the table, [n]."""
        return (snr_db - self.levels()[0]).floor().clamp(0, len(self.levels()) - 1).long()

    def _format(self, k: int, level: int) -> Format | None:
        number, order = self.choice[self.config.symbols.index(k), level].tolist()
        return None if number == NOTHING else Format(number, self.config.offered[number], order, k)

    def _groups(self, k: int, snr_db: Tensor) -> Iterator[tuple[Tensor, int, Format]]:
        """Rows of samples that share a level and are sent at all, with the level and what their blocks carry."""
        levels = self._level(snr_db)
        for level in levels.unique().tolist():
            form = self._format(k, level)
            if form is not None:
                yield torch.nonzero(levels == level)[:, 0], level, form

    # UE ------------------------------------------------------------------------------------------------------------------

    def latent(self, image: Tensor, snr_db: Tensor) -> Tensor:
        return self.sent(image, snr_db, self.config.longest)

    def sent(self, image: Tensor, snr_db: Tensor, k: int) -> Tensor:
        symbols = torch.ones(len(image), k, dtype=torch.complex64, device=self.device)  # where nothing is to be told
        for rows, _, form in self._groups(k, snr_db):
            codec = self.codec(form.number)
            codes = codec.codes(self.from_image(image[rows]).to(self.complex_dtype))
            symbols[rows] = block(_bits(codes, codec).to(self.device), form)
        return torch.view_as_real(symbols)

    # base station --------------------------------------------------------------------------------------------------------

    def estimate(self, received: Tensor, snr_db: Tensor, steps: int) -> Tensor:
        size = (self.config.angles, self.config.delays)
        image = torch.zeros(len(received), 2, *size, dtype=self.scale.dtype, device=self.device)
        for rows, form, bits, whole in self._read(received, snr_db):
            if bool(whole.any()):
                codec = self.codec(form.number)
                image[rows[whole]] = self.to_image(codec.reconstruct(_codes(bits[whole], codec).to(self.device), None))
        return image

    @torch.inference_mode()
    def blocks(self, received: Any, snr_db: Any) -> Any:
        """Which samples are answered by a payload whose CRC holds; the others are answered by zeros.

        :param received: as :meth:`decode` takes it; likewise ``snr_db``
        :returns: bool [n], a tensor where ``received`` is one, else numpy
        :raises ZooError: as :meth:`decode` does
        """
        symbols = getattr(received, "symbols", received)
        parts = [torch.zeros(0, dtype=torch.bool, device=self.device)]
        for pairs, level in self._arrived(symbols, snr_db):
            passed = torch.zeros(len(pairs), dtype=torch.bool, device=self.device)
            for rows, _, _, whole in self._read(pairs, level):
                passed[rows] = whole
            parts.append(passed)
        found = torch.cat(parts)
        return found if isinstance(symbols, Tensor) else found.cpu().numpy()

    def _broken(self, pairs: Tensor, snr_db: Tensor) -> Tensor:
        broken = super()._broken(pairs, snr_db)
        for rows, _, _, whole in self._read(pairs, snr_db):
            broken[rows] = ~whole
        return broken

    def _read(self, pairs: Tensor, snr_db: Tensor) -> Iterator[tuple[Tensor, Format, Tensor, Tensor]]:
        """Of blocks that share a format: rows, the format, payloads' bits [n, bit], and whether their CRC holds [n]."""
        symbols = torch.view_as_complex(pairs.float().contiguous())
        for rows, level, form in self._groups(symbols.shape[1], snr_db):
            yield rows, form, *opened(symbols[rows], form, float(self.levels()[level]))

    # the fit -------------------------------------------------------------------------------------------------------------

    @classmethod
    def from_source(cls, source: Source, training: Training, fields: dict[str, Any]) -> Self:
        try:
            config = cls.Config.model_validate(fields)
        except ValidationError as error:
            raise ZooError(f"recipe of separate: codec: {explain(error, cls.Config)}") from None
        x = torch.cat([batch.x.cpu() for batch in source.once(training.samples or SAMPLES)])
        return cls.fit(x, source.validation(TRIAL_SAMPLES).x.cpu(), config, training.seed)

    @classmethod
    def fit(cls, x: Tensor, unseen: Tensor, config: SeparateConfig, seed: int = 0) -> Self:
        """Fit the codec to samples, measure what its payloads are worth and which blocks arrive, and choose.

        :param x: physical values, complex [n, angle, delay]
        :param unseen: other samples, that errors are measured on
        :param seed: of the profiles, and of blocks, channels and noise
        :raises ZooError: samples that the codec cannot be made of, none to measure errors on, or a rate that the codec cannot have
        """
        if not len(unseen):
            raise ZooError("separate measures its payloads on the val split, which has no samples")
        inner: KLT | ShortProfileCode
        if config.inner == "klt":
            batches = map(as_arrays, (Batch(part, None, part) for part in x.split(4096)))
            covariances = Covariances.of(batches)
            inner = KLT.fit(config.offered[-1], covariances)
            power = torch.view_as_complex(inner.estimator).abs().double().square().sum(0).numpy()  # of components
            widths = [allocate(power, rate) for rate in config.offered[:-1]]
            config = config.model_copy(update={"widths": (*widths, inner.widths)})
            code = cls(config)
        else:
            code = cls(config)
            assert isinstance(code.inner, ShortProfileCode)
            inner = ShortProfileCode.fit(x, code.inner.config, seed)
        code.inner.load_state_dict(inner.state_dict())
        with torch.inference_mode():
            for number, rate in enumerate(config.offered):
                codec = code.codec(number)
                if isinstance(codec, ShortProfileCode) and not codec.holds_blanks():
                    raise ZooError(
                        f"profile-code cannot keep payloads to {rate} bits on these samples; offer longer ones"
                    )
                estimate = codec.reconstruct(codec.codes(unseen), None)
                pair = (torch.view_as_real(estimate), torch.view_as_real(unseen))
                code.distortion[number] = relative_error(*pair).mean()
            for k in config.symbols:
                code._choose(k, seed)
        return code

    def _choose(self, k: int, seed: int) -> None:
        """Fill the table of one k: going up in SNR, from what was chosen last to higher rates, as long as errors fall."""
        row, offered, first = self.config.symbols.index(k), self.config.offered, 0
        measured: dict[tuple[int, int], float] = {}  # at the level before: where no block was lost, none will be
        for place, level in enumerate(self.levels()):
            least, found, lowest, misses = 1.0, (NOTHING, 1), 0.0, 0
            before, measured = measured, {}
            for number in range(first, len(offered)):
                worth, misses = float(self.distortion[number]), misses + 1
                for order in _orders(number, offered[number], k):
                    if worth >= least:
                        continue
                    most = min((least - worth) / (1 - worth), MOST_LOST)  # share of lost blocks that takes the gain
                    lost = before.get((number, order), 1.0)
                    if lost > 0:
                        form = Format(number, offered[number], order, k)
                        lost = block_error_rate(form, level, self.config.blocks, seed, most)
                    measured[number, order] = lost
                    if lost < most:
                        least, found, lowest, misses = lost + (1 - lost) * worth, (number, order), lost, 0
                if misses == MISSES:
                    break
            first = max(first, found[0])
            self.choice[row, place] = torch.tensor(found, dtype=torch.int16)
            self.block_errors[row, place] = lowest


def _orders(number: int, payload: int, k: int) -> list[int]:
    """Modulations that are worth a trial."""
    possible = (order for order in ORDERS if Format(number, payload, order, k).possible)
    return list(itertools.islice(possible, ORDERS_TRIED))


def block(payload: Tensor, form: Format) -> Tensor:
    """Symbols of payloads.

    :param payload: bits, [n, bit]
    :returns: complex64 [n, k], each row of average power one
    """
    coder, _ = _polar(form.information, form.coded, str(payload.device))
    mapper, _ = _modulation(form.order, str(payload.device))
    best = torch.zeros(len(payload), form.symbols, dtype=torch.complex64, device=payload.device)
    least = torch.full((len(payload),), torch.inf, device=payload.device)
    for spare in range(1 << form.spare):
        row = torch.tensor([spare >> place & 1 for place in range(form.spare)], device=payload.device)
        information = torch.cat((row.expand(len(payload), -1), payload), 1).float()
        symbols = mapper(coder(information))
        off = (symbols.abs().square().mean(1) - 1).abs()
        better = off < least
        best[better], least[better] = symbols[better], off[better]
    return unit_power(best)


def opened(received: Tensor, form: Format, snr_db: float) -> tuple[Tensor, Tensor]:
    """Payloads of blocks that arrived.

    :param received: complex64 [n, k]
    :param snr_db: of one antenna, which tells the mean noise
    :returns: bits, [n, bit], and whether the CRC holds, bool [n]
    """
    _, decoder = _polar(form.information, form.coded, str(received.device))
    _, demapper = _modulation(form.order, str(received.device))
    information, whole = decoder(demapper(received, NOISE * 10 ** (-snr_db / 10)))
    return information[:, form.spare :].long(), whole


def block_error_rate(form: Format, snr_db: float, blocks: int, seed: int, most: float = 1.0) -> float:
    """Share of random blocks that are lost over flat Rayleigh fading, or arrive wrong.

    :param snr_db: of one antenna
    :param most: above which it need not be told apart: the trial ends early where it is surely beyond
    """
    generator = torch.Generator().manual_seed(seed)
    lost, sent = 0, 0
    while sent < blocks:
        n = min(FIRST_BLOCKS, blocks - sent)
        payload = torch.randint(0, 2, (n, form.payload), generator=generator)
        arrived = transmit(block(payload, form), snr_db, channel=Rayleigh(), generator=generator).symbols
        bits, whole = opened(arrived, form, snr_db)
        lost, sent = lost + n - int((whole & (bits == payload).all(1)).sum()), sent + n
        if lost - 3 * lost**0.5 > most * sent:
            break
    return lost / sent


def _bits(codes: Tensor, codec: Codec[Any]) -> Tensor:
    """Codes as the bits of payloads, [n, bit]."""
    payloads = bytes_of.pack(codes.cpu().numpy(), codec.widths)
    raw: NDArray[np.uint8] = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), codec.payload_bytes)
    return torch.from_numpy(np.unpackbits(raw, axis=1)[:, : codec.bits])


def _codes(bits: Tensor, codec: Codec[Any]) -> Tensor:
    """Undo :func:`_bits`."""
    raw = np.packbits(bits.cpu().numpy().astype(np.uint8), axis=1)
    return torch.from_numpy(bytes_of.unpack([row.tobytes() for row in raw], codec.widths))


@functools.lru_cache(maxsize=256)
def _polar(information: int, coded: int, device: str) -> tuple[Any, Any]:
    """Encoder and decoder of blocks."""
    try:
        from sionna.phy.fec.polar import Polar5GDecoder, Polar5GEncoder
    except ImportError:
        raise ZooError("the channel code of separate is Sionna's; pip install sionna-no-rt") from None
    coder = Polar5GEncoder(information, coded, device=device)
    return coder, Polar5GDecoder(coder, "SCL", LIST, return_crc_status=True, device=device)


@functools.cache
def _modulation(order: int, device: str) -> tuple[Any, Any]:
    """Mapper and demapper."""
    try:
        from sionna.phy.mapping import Demapper, Mapper
    except ImportError:
        raise ZooError("the modulation of separate is Sionna's; pip install sionna-no-rt") from None
    kind = "pam" if order == 1 else "qam"
    return Mapper(kind, order, device=device), Demapper("app", kind, order, device=device)
