"""What every joint source-channel code is: CSI to symbols of a radio link at the UE, received symbols to CSI at the base station.

    x --latent(., SNR)--> k_max symbols --first k, unit power--> s --link--> s^ --zeros for the rest--> coarse(., SNR) --refine--> x^

Source: S. K. Ankireddy, H. Kim and H. Kim, "Residual Diffusion Models for Variable-Rate Joint Source Channel Coding of MIMO CSI"
(RD-JSCC), §II, §VI, §VII; equation numbers are its.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from zoo.data import channel_estimate
from zoo.errors import ZooError
from zoo.models.base import Csi, Model, ModelConfig, Network, finite
from zoo.nn import bits as bytes_of
from zoo.nn.quantise import mu_law, mu_law_inverse, straight_through, uniform_codes, uniform_values
from zoo.uplink import Channel, Rayleigh, Received, transmit, unit_power

MU = 2.0  # of the companding, §VII-C. The paper's 50 is for signals of rare peaks: symbols are nearly Gaussian, and it would cost 4 dB at 4 bits
MAX_BITS = 16
TRIAL_SNR_DB, TRIAL_SEED = 5.0, 0  # of the error in the training log, and of golden vectors
REPLAYED_BITS = 4


class JSCCConfig(ModelConfig):
    """What all of them have."""

    symbols: tuple[int, ...] = Field(
        (16,), min_length=1, description="channel uses k to choose from: prefixes of one latent (Matryoshka, §VI)"
    )
    snr_db: tuple[float, float] = Field((-10.0, 10.0), description="range of the SNR an antenna in training")
    cnr_db: tuple[float, float] | None = Field(
        None, description="range of the CNR of the UE's own estimate in training, eq. (13); none: it is perfect"
    )
    bits: int | None = Field(None, ge=1, le=MAX_BITS, description="bits a real dimension in training; none: analog")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if list(self.symbols) != sorted(set(self.symbols)) or self.symbols[0] < 1:
            raise ValueError(f"symbols {self.symbols} must be positive and rise")
        for name, limits in (("snr_db", self.snr_db), ("cnr_db", self.cnr_db)):
            if limits is not None and limits[0] > limits[1]:
                raise ValueError(f"{name} {limits} must be (low, high)")
        return self

    @property
    def longest(self) -> int:
        """k_max, complex length of the latent."""
        return self.symbols[-1]


J = TypeVar("J", bound=JSCCConfig)


class JSCC(Model[J]):
    """A joint source-channel code. A family defines :meth:`latent` and :meth:`estimate`.

    Inside, symbols are real pairs [n, k, 2] and CSI is an image.
    """

    steps: tuple[int, int] = (0, 0)  # fewest and most refinement steps of the decoder
    in_blocks: ClassVar[bool] = False  # it sends blocks, which arrive whole or not at all: see :meth:`lost`
    default_steps: int = 0

    # what a family defines -----------------------------------------------------------------------------------------------

    @abstractmethod
    def latent(self, image: Tensor, snr_db: Tensor) -> Tensor:
        """
        :param image: of the UE's estimate, [n, 2, angle, delay]
        :param snr_db: [n]
        :returns: [n, k_max, 2]; its power is of no account
        """

    @abstractmethod
    def estimate(self, received: Tensor, snr_db: Tensor, steps: int) -> Tensor:
        """
        :param received: of one of the rates, [n, k, 2]
        :param snr_db: [n]
        :param steps: of refinement, in the range of :attr:`steps`
        :returns: image, [n, 2, angle, delay]
        """

    def sent(self, image: Tensor, snr_db: Tensor, k: int) -> Tensor:
        """Symbols of one rate: the first k of the latent, unless a family has a code for each k.

        :param image: as :meth:`latent` takes it; likewise ``snr_db``
        :param k: one of the config's ``symbols``
        :returns: [n, k, 2], each row of average power one
        """
        return unit_power(wide(self.latent(image, snr_db)[:, :k]))

    def searched(self, image: Tensor, pairs: Tensor, snr_db: Tensor, effort: int) -> Tensor:
        """Look for symbols through the decoder, whose expected error is at most that of given ones.

        :param image: of the UE's estimate, [n, 2, angle, delay]
        :param pairs: symbols, [n, k, 2]; likewise those that are found
        :param snr_db: [n]
        :param effort: 1 ... :attr:`efforts` - 1
        """
        raise TypeError(f"{type(self).__name__} has no search")

    # what a user calls: UE -----------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def encode(
        self, x: Csi, snr_db: Any, k: int | None = None, bits: int | None = None, effort: int | None = None
    ) -> Any:  # fmt: skip
        """What the UE sends.

        :param x: downlink CSI as the UE knows it, physical values, complex [n, angle, delay], numpy or torch on any device
        :param snr_db: of the feedback link, at each antenna of the base station: a number or [n]
        :param k: channel uses, one of the config's ``symbols``; the most if not given
        :param bits: quantise, real and imaginary parts by themselves: mu-law and uniform
        :param effort: 0 encodes; 1 and up, below :attr:`efforts`, look for better symbols through the decoder; :attr:`default_effort` if not
            given. What is found is meant for this very k: a first part of it is not the code of a smaller one
        :returns: symbols, complex [n, k], each row of average power one, a tensor where x is one, else numpy; with ``bits``, n payloads of
            ceil(2 k bits / 8) bytes, from which :meth:`symbols` makes them
        :raises ZooError: wrong shape or type, values that are not finite, or a k or an effort that the model does not have
        """
        samples, k, tried = self._samples(x, "x"), self._served(k), self.effort_of(effort)
        snr = self._snr(snr_db, len(samples))
        parts = [torch.zeros(0, k, 2, dtype=self.scale.dtype, device=self.device)]
        for image, level in zip(samples.split(self.at_once), snr.split(self.at_once), strict=True):
            if len(image):
                seen = self.to_image(image.to(self.device, self.complex_dtype))
                pairs = self.sent(seen, level, k)
                parts.append(self.searched(seen, pairs, level, tried) if tried else pairs)
        pairs = torch.cat(parts)
        if bits is not None:
            return bytes_of.pack(quantised(pairs, bits).flatten(1).cpu().numpy(), [_width(bits)] * (2 * k))
        return _as_given(torch.view_as_complex(wide(pairs)), x)

    @torch.inference_mode()
    def symbols(self, payloads: Sequence[bytes], bits: int, k: int | None = None) -> Any:
        """What is sent of quantised symbols.

        :param payloads: of :meth:`encode` with the same ``bits`` and ``k``
        :returns: numpy complex [n, k], each row of average power one
        :raises ZooError: payloads of another length
        """
        k = self._served(k)
        codes = torch.from_numpy(bytes_of.unpack(payloads, [_width(bits)] * (2 * k))).view(-1, k, 2)
        return torch.view_as_complex(unit_power(levels(codes, bits))).numpy()

    # what a user calls: base station -------------------------------------------------------------------------------------

    @torch.inference_mode()
    def decode(self, received: Any, snr_db: Any, steps: int | Literal["auto"] | None = None) -> Any:
        """What the base station makes of it.

        :param received: what :func:`zoo.uplink.transmit` gives, or its symbols, complex [n, k], numpy or torch; k tells the rate
        :param snr_db: of the link, at each antenna: a number or [n]
        :param steps: of refinement; 0 is the autoencoder alone; ``auto`` is the config's choice for samples that
            :meth:`worth_refining` picks, and the fewest for the rest; the config's choice for all if not given
        :returns: estimate of X, physical values, complex [n, angle, delay]: a tensor on the model's device where ``received`` is one,
            else numpy
        :raises ZooError: symbols of a number that the model does not serve, or not finite; steps that it does not have
        """
        received = _symbols_of(received)
        steps = self.default_steps if steps is None else steps
        fewest, most = self.steps
        if steps != "auto" and not fewest <= steps <= most:
            raise ZooError(
                f"steps {steps} is out of range: this model decodes in {fewest} to {most} steps of refinement, or auto"
            )
        size = (self.config.angles, self.config.delays)
        parts = [torch.zeros(0, *size, dtype=self.complex_dtype, device=self.device)]
        for pairs, level in self._arrived(received, snr_db):
            if steps == "auto":
                chosen = self._worth(pairs, level)
                refined = self.estimate(pairs[chosen], level[chosen], self.default_steps)
                image = self.estimate(pairs, level, fewest).index_put((chosen,), refined)
            else:
                image = self.estimate(pairs, level, steps)
            parts.append(self.from_image(image))
        return _as_given(torch.cat(parts), received)

    @torch.inference_mode()
    def worth_refining(self, received: Any, snr_db: Any) -> Any:
        """Which samples ``steps="auto"`` refines, by what the receiver knows: k, the SNR, and the energies of the symbols.

        :param received: as :meth:`decode` takes it; likewise ``snr_db``
        :returns: bool [n], a tensor where ``received`` is one, else numpy
        :raises ZooError: as :meth:`decode` does
        """
        return self._asked(self._worth, received, snr_db)

    @torch.inference_mode()
    def lost(self, received: Any, snr_db: Any) -> Any:
        """Which samples' blocks the receiver finds broken: none, unless a family sends blocks.

        :param received: as :meth:`decode` takes it; likewise ``snr_db``
        :returns: bool [n], a tensor where ``received`` is one, else numpy
        :raises ZooError: as :meth:`decode` does
        """
        return self._asked(self._broken, received, snr_db)

    def _asked(self, ask: Callable[[Tensor, Tensor], Tensor], received: Any, snr_db: Any) -> Any:
        """What is true of each of the samples that arrived, bool [n], as :meth:`lost` returns it."""
        received = _symbols_of(received)
        found = [ask(*part) for part in self._arrived(received, snr_db)]
        return _as_given(torch.cat([torch.zeros(0, dtype=torch.bool, device=self.device), *found]), received)

    def _broken(self, pairs: Tensor, snr_db: Tensor) -> Tensor:
        """As :meth:`lost`, of received [n, k, 2]."""
        return torch.zeros(len(pairs), dtype=torch.bool, device=self.device)

    def _worth(self, pairs: Tensor, snr_db: Tensor) -> Tensor:
        """As :meth:`worth_refining`, of received [n, k, 2]: none, unless a family knows better."""
        return torch.zeros(len(pairs), dtype=torch.bool, device=self.device)

    def _arrived(self, received: Any, snr_db: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """Received symbols as pairs [n, k, 2], and their SNRs [n], in parts."""
        given = received if isinstance(received, Tensor) else np.asarray(received)
        is_complex = given.is_complex() if isinstance(given, Tensor) else given.dtype.kind == "c"
        if given.ndim != 2 or not is_complex:
            kind = f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
            raise ZooError(f"received is {kind}; this model takes complex [n, k]")
        self._served(given.shape[1])
        symbols = finite(given, "received").to(self.device, self.complex_dtype)
        snr = self._snr(snr_db, len(symbols))
        for rows, level in zip(symbols.split(self.at_once), snr.split(self.at_once), strict=True):
            if len(rows):
                yield torch.view_as_real(rows).to(self.scale.dtype), level

    def _served(self, k: int | None) -> int:
        k = self.config.longest if k is None else k
        if k not in self.config.symbols:
            raise ZooError(
                f"{k} symbols are not served; this model has k of {', '.join(map(str, self.config.symbols))}"
            )
        return k

    def _snr(self, snr_db: Any, n: int) -> Tensor:
        try:
            levels_db = torch.as_tensor(snr_db, dtype=self.scale.dtype, device=self.device)
            whole = bool(torch.isfinite(levels_db).all()) and levels_db.shape in ((), (n,))
        except (TypeError, ValueError, RuntimeError):
            whole = False
        if not whole:
            raise ZooError(f"snr_db must be a finite number of decibels, or {n} of them")
        return levels_db.expand(n)

    # shipping ------------------------------------------------------------------------------------------------------------

    @classmethod
    def label(cls, fields: Mapping[str, Any]) -> str:
        return f"k{max(fields.get('symbols', cls.Config.model_fields['symbols'].default))}"

    def replay(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        sent = self.encode(x, TRIAL_SNR_DB, effort=0)
        payloads = self.encode(x, TRIAL_SNR_DB, bits=REPLAYED_BITS, effort=0)
        return {
            "symbols": sent.cpu(),
            "payload": torch.frombuffer(bytearray(b"".join(payloads)), dtype=torch.uint8).view(len(x), -1),
            "z": self.decode(sent, TRIAL_SNR_DB).cpu(),
        }


class NetworkJSCC(JSCC[J], Network[J]):
    """A joint source-channel code whose parameters are trained by gradient."""

    target = "x"
    channel: ClassVar[Channel] = Rayleigh(flat=False)  # of the link that training and its log see
    gain: Tensor  # what makes the images of unit power a cell, as the networks take and give them

    def __init__(self, config: J) -> None:
        super().__init__(config)
        self.register_buffer("gain", torch.ones(()))

    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        self.gain.copy_(self.to_image(x).square().mean().rsqrt())

    def padded(self, pairs: Tensor) -> Tensor:
        """Received symbols [n, k, 2] with zeros for those that were not sent, [n, k_max, 2]."""
        return torch.nn.functional.pad(pairs, (0, 0, 0, self.config.longest - pairs.shape[1]))

    def trial(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, str]:
        generator = torch.Generator(self.device).manual_seed(TRIAL_SEED)
        sent = self.encode(x.to(self.device), TRIAL_SNR_DB, effort=0)
        received = transmit(sent, TRIAL_SNR_DB, channel=self.channel, generator=generator).symbols
        return self.decode(received, TRIAL_SNR_DB), f"{self.config.longest} symbols, {TRIAL_SNR_DB:g} dB"

    def draws(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        config, device = self.config, generator.device

        def uniform(limits: tuple[float, float]) -> Tensor:
            return limits[0] + (limits[1] - limits[0]) * torch.rand(n, generator=generator, device=device)

        nothing = torch.zeros(n, config.longest, dtype=torch.complex64, device=device)
        drawn = {
            "turn": torch.arange(n, device=device)
            % len(config.symbols),  # the rate, where each sample goes at one only
            "snr_db": uniform(config.snr_db),
            "disturbance": torch.view_as_real(
                transmit(nothing, 0.0, channel=self.channel, generator=generator).symbols
            ),
        }
        if config.cnr_db is not None:
            drawn["cnr_db"] = uniform(config.cnr_db)
            drawn["misestimate"] = torch.randn(n, 2, config.angles, config.delays, generator=generator, device=device)
        return drawn

    def received(self, x: Tensor, draws: dict[str, Tensor]) -> list[Tensor]:
        """Through encoder and link, with gradients, for each k: [n, k_max, 2], zeros where nothing was sent.

        :param x: image of the true CSI
        :param draws: of :meth:`draws`
        """
        snr, seen = draws["snr_db"], x
        if "cnr_db" in draws:
            seen = channel_estimate(x, draws["cnr_db"], draws["misestimate"])
        latent = self.latent(seen, snr).float()
        noise = draws["disturbance"] * 10 ** (-snr / 20)[:, None, None]
        arrived = []
        for k in self.config.symbols:
            sent = unit_power(latent[:, :k])
            if self.config.bits is not None:
                values = levels(quantised(sent, self.config.bits), self.config.bits)
                sent = unit_power(straight_through(sent, values))
            arrived.append(self.padded(sent + noise[:, :k]))
        return arrived


def peak(bits: int) -> float:
    """Largest real part that is quantised: 2 + bits / 4 standard deviations of unit power, near the least error for Gaussian symbols."""
    return (2 + bits / 4) / math.sqrt(2)


def quantised(pairs: Tensor, bits: int) -> Tensor:
    """Codes of companded real parts (§VII-C), int64 of the same shape; what exceeds :func:`peak` is clipped."""
    width = _width(bits)
    return uniform_codes(mu_law((pairs / peak(width)).clamp(-1, 1), MU), width)


def levels(codes: Tensor, bits: int) -> Tensor:
    """Real parts of :func:`quantised`, single precision."""
    width = _width(bits)
    return peak(width) * mu_law_inverse(uniform_values(codes, width), MU)


def _width(bits: int) -> int:
    if not isinstance(bits, int) or not 1 <= bits <= MAX_BITS:
        raise ZooError(f"bits = {bits!r}: a real dimension takes 1 to {MAX_BITS}")
    return bits


def wide(values: Tensor) -> Tensor:
    """Values in single precision at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32)).contiguous()


def _symbols_of(received: Any) -> Any:
    return received.symbols if isinstance(received, Received) else received


def _as_given(values: Tensor, given: Any) -> Any:
    """A tensor where the caller's own was one, else numpy."""
    return values if isinstance(given, Tensor) else values.cpu().numpy()
