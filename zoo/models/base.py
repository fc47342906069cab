"""What every model is, and what every codec is: CSI to payload bytes at the UE, payload bytes (and side information) to CSI at the
base station. :mod:`zoo.models.jscc` has the models that send symbols instead."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.nn import bits

if TYPE_CHECKING:
    from zoo.config import Training
    from zoo.data import Source
    from zoo.input_statistics import ModelInput

BATCH, GPU_BATCH = 256, 2048  # samples that a model handles at once on a CPU and on a GPU; they bound its memory
Csi = NDArray[np.complexfloating] | Tensor


class ModelConfig(BaseModel):
    """What fixes a model's shape: with its weights, all of a model. Every family adds its own fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    angles: int = Field(32, ge=1, description="rows of a sample")
    delays: int = Field(32, ge=1, description="columns of a sample")


class CodecConfig(ModelConfig):
    """Of a model that sends payloads."""

    side_information: bool = Field(True, description="the decoder is given Y")


class MultiRateConfig(CodecConfig):
    """Of a codec whose rates may share what it has learnt."""

    rate: int = Field(128, description="bits of a payload")
    rates: tuple[int, ...] = Field((), description="rates that share the model; empty: `rate` alone")

    @model_validator(mode="after")
    def _holds_its_rate(self) -> Self:
        if self.rates and (self.rate not in self.rates or len(set(self.rates)) < len(self.rates)):
            raise ValueError(f"rates {self.rates} must hold rate {self.rate}, each once; [] for one rate alone")
        return self

    @property
    def shared(self) -> tuple[int, ...]:
        """All rates that this model serves."""
        return self.rates or (self.rate,)


M = TypeVar("M", bound=ModelConfig)
C = TypeVar("C", bound=CodecConfig)
R = TypeVar("R", bound=MultiRateConfig)


class Model(nn.Module, Generic[M]):
    """Sender and receiver of one sort of feedback, with the scale of the samples they are made for."""

    Config: ClassVar[type[ModelConfig]]
    scale: Tensor  # physical value of 1.0 inside the networks, a scalar fitted on training data
    input_statistics: ModelInput | None = (
        None  # of the samples that it is made for, once loaded; older models have none
    )

    def __init__(self, config: M) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.ones(()))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.scale.device

    @property
    def at_once(self) -> int:
        """Samples that it handles at once."""
        return BATCH if self.device.type == "cpu" else GPU_BATCH

    @property
    def complex_dtype(self) -> torch.dtype:
        """Of the samples inside the model: complex128 for float64 weights, else complex64."""
        return torch.complex128 if self.scale.dtype == torch.float64 else torch.complex64

    @property
    def takes_y(self) -> bool:
        """Whether the receiver is given side information."""
        return False

    @classmethod
    @abstractmethod
    def label(cls, fields: Mapping[str, Any]) -> str:
        """Rate as the last part of a model's name.

        :param fields: of the config, where they differ from its defaults
        """

    @classmethod
    def about(cls, fields: Mapping[str, Any]) -> str:
        """Say in a sentence or two what a model of this sort is, for its card.

        :param fields: of the config
        """
        return (sys.modules[cls.__module__].__doc__ or "").partition("\n")[0]

    @property
    def efforts(self) -> int:
        """Count the levels of effort that the UE has: with 1, what is sent is as the encoder makes it."""
        return 1

    @property
    def default_effort(self) -> int:
        """Give the level that is meant where none is given."""
        return 0

    def effort_of(self, effort: int | None) -> int:
        """The level of effort that is meant.

        :param effort: :attr:`default_effort` if not given
        :raises ZooError: this model does not have it
        """
        level = self.default_effort if effort is None else effort
        if level not in range(self.efforts):
            raise ZooError(f"effort {effort} is not one of this model's: {', '.join(map(str, range(self.efforts)))}")
        return level

    def singles(self) -> Sequence[Model[M]]:
        """The models that this one is shipped as: itself, unless it stands for several."""
        return [self]

    @abstractmethod
    def replay(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        """What the model makes of some samples, to be kept as golden vectors: integers, which a machine must meet exactly, and
        real or complex numbers, which it may round.

        :param x: complex [n, angle, delay]; likewise ``y``, which is ignored where the model takes none
        """

    def as_complex(self, pairs: Tensor) -> Tensor:
        """Stored pairs [..., 2 (re, im)] as the complex numbers of :attr:`complex_dtype`."""
        real = torch.float64 if self.complex_dtype == torch.complex128 else torch.float32
        return torch.view_as_complex(pairs.to(real).contiguous())

    def to_image(self, x: Tensor) -> Tensor:
        """Complex physical values [n, angle, delay] to images, [n, 2 (re, im), angle, delay] in units of the scale, of the weights' data type."""
        return torch.stack((x.real, x.imag), 1).div(self.scale).to(self.scale.dtype)

    def from_image(self, image: Tensor) -> Tensor:
        """Undo :meth:`to_image`."""
        wide = image.to(torch.promote_types(image.dtype, torch.float32))
        return torch.complex(wide[:, 0], wide[:, 1]).mul(self.scale)

    def _samples(self, array: Csi, name: str) -> Tensor:
        shape, given = (
            (self.config.angles, self.config.delays),
            array if isinstance(array, Tensor) else np.asarray(array),
        )
        is_complex = given.is_complex() if isinstance(given, Tensor) else given.dtype.kind == "c"
        if given.ndim != 3 or tuple(given.shape[1:]) != shape or not is_complex:
            kind = f"{str(given.dtype).removeprefix('torch.')} {list(given.shape)}"
            raise ZooError(f"{name} is {kind}; this codec takes complex [n, {shape[0]} angles, {shape[1]} delays]")
        return finite(given, name)


def finite(given: Csi, name: str) -> Tensor:
    """Complex values as a tensor that torch can take.

    :param name: of the values, for the message
    :raises ZooError: they are not finite
    """
    if isinstance(given, Tensor):
        values = given
    else:  # torch takes native byte order, and warns of arrays that may not be written
        dtype = np.complex64 if given.dtype.itemsize <= 8 else np.complex128
        values = torch.from_numpy(np.require(given, dtype, ["C", "W"]))
    if not bool(torch.isfinite(torch.view_as_real(values)).all()):
        raise ZooError(f"{name} holds values that are not finite; see datagen verify")
    return values


class Fitted(Model[M]):
    """A model that is made in closed form, from samples or from the law behind them."""

    @classmethod
    @abstractmethod
    def from_source(cls, source: Source, training: Training, fields: dict[str, Any]) -> Self:
        """Fit.

        :param source: of the samples or of their law
        :param training: how many samples, and the noise on Y
        :param fields: of the recipe, with the data set's ``angles``, ``delays`` and ``side_information``, where the model has it
        :raises ZooError: an unknown field, or data that this model cannot be made of
        """


class Codec(Model[C]):
    """A fixed-rate codec.

        x --codes--> integers of `widths` bits --pack--> payload --unpack--> integers --reconstruct(., y)--> z^

    A family defines :attr:`widths`, :meth:`codes` and :meth:`reconstruct`; the bytes are made here, once for all.
    """

    # what a family defines -----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def widths(self) -> Sequence[int]:
        """Bits of each code of a payload, in order."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Quantise.

        :param x: physical values, complex [n, angle, delay]
        :returns: integers, code j in 0 ... 2^widths[j] - 1, int64 [n, len(widths)]
        """

    @abstractmethod
    def reconstruct(self, codes: Tensor, y: Tensor | None) -> Tensor:
        """Estimate the target.

        :param codes: int64 [n, len(widths)]
        :param y: side information, complex [n, angle, delay], where the codec takes it
        :returns: physical values, complex [n, angle, delay]
        """

    def searched_codes(self, x: Tensor, effort: int) -> Tensor:
        """Look for codes through the decoder, whose error is at most that of :meth:`codes`.

        :param effort: 1 ... :attr:`efforts` - 1
        """
        raise TypeError(f"{type(self).__name__} has no search")

    # what a user calls ---------------------------------------------------------------------------------------------------

    @property
    def bits(self) -> int:
        """Rate [bits a sample]."""
        return sum(self.widths)

    @property
    def payload_bytes(self) -> int:
        """Length of a payload: ceil(bits / 8)."""
        return -(-self.bits // 8)

    @property
    def takes_y(self) -> bool:
        return self.config.side_information

    @classmethod
    def label(cls, fields: Mapping[str, Any]) -> str:
        return f"{fields.get('rate', cls.Config.model_fields['rate'].default)}b"

    def replay(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        payloads = self.compress(x, effort=0)  # what is searched may flip on a near tie between machines
        z = torch.as_tensor(self.decompress(payloads, y if self.takes_y else None))
        payload = torch.frombuffer(bytearray(b"".join(payloads)), dtype=torch.uint8).view(len(x), -1)
        return {"payload": payload, "z": z}

    @torch.inference_mode()
    def compress(self, x: Csi, effort: int | None = None) -> list[bytes]:
        """What the UE sends.

        :param x: downlink CSI, physical values, complex [n, angle, delay], numpy or torch on any device
        :param effort: 0 quantises; 1 and up, below :attr:`efforts`, look for a better payload of the same length through the decoder;
            :attr:`default_effort` if not given. On a near tie, what is found may depend on how a machine rounds
        :returns: n payloads of :attr:`payload_bytes` bytes each
        :raises ZooError: wrong shape or type, values that are not finite, or an effort that this codec does not have
        """
        level = self.effort_of(effort)
        samples = self._samples(x, "x")
        rows = []
        for part in samples.split(self.at_once):
            there = part.to(self.device, self.complex_dtype)
            rows.append((self.searched_codes(there, level) if level else self.codes(there)).cpu().numpy())
        codes = np.concatenate(rows) if rows else np.zeros((0, len(self.widths)), np.int64)
        return bits.pack(codes, self.widths)

    @torch.inference_mode()
    def decompress(self, payloads: Sequence[bytes], side_information: Csi | None = None) -> Any:
        """What the base station makes of it.

        :param payloads: as :meth:`compress` returns them
        :param side_information: uplink CSI Y, physical values, complex [n, angle, delay], where the codec takes it
        :returns: estimate of the target, complex [n, angle, delay]: a torch tensor on the codec's device if the side
            information is one, else numpy
        :raises ZooError: a payload of another length or with stray bits, side information missing, superfluous or of
            another shape
        """
        if self.config.side_information and side_information is None:
            raise ZooError("this codec decodes with side information: give side_information=Y, the uplink CSI")
        if not self.config.side_information and side_information is not None:
            raise ZooError("this codec takes no side information: leave side_information out")
        codes = torch.from_numpy(bits.unpack(payloads, self.widths))
        y = None if side_information is None else self._samples(side_information, "side_information")
        if y is not None and len(y) != len(codes):
            raise ZooError(f"{len(codes)} payloads but {len(y)} samples of side information; give one for each")
        parts = []
        for start in range(0, len(codes), self.at_once):
            rows = slice(start, start + self.at_once)
            part = None if y is None else y[rows].to(self.device, self.complex_dtype)
            parts.append(self.reconstruct(codes[rows].to(self.device), part))
        shape = (self.config.angles, self.config.delays)
        z = torch.cat(parts) if parts else torch.zeros(0, *shape, dtype=self.complex_dtype, device=self.device)
        return z if isinstance(side_information, Tensor) else z.cpu().numpy()


class MultiRate(Codec[R]):
    """A codec of several rates, each of which is shipped as a codec of its own."""

    def singles(self) -> Sequence[Self]:
        return [self.at(rate) for rate in self.config.shared]

    def at(self, rate: int) -> Self:
        """The codec of one rate alone, with the same weights.

        :raises ZooError: a rate that this one does not serve
        """
        if rate not in self.config.shared:
            raise ZooError(f"rate {rate} is not one of {', '.join(map(str, self.config.shared))}")
        single = type(self)(self.config.model_copy(update={"rate": rate, "rates": ()}))
        single.load_state_dict(self._weights_of(rate))
        return single.to(self.device, self.scale.dtype).train(self.training)

    @abstractmethod
    def _weights_of(self, rate: int) -> dict[str, Tensor]:
        """State of the codec of one rate alone."""


class Network(Model[M]):
    """A model whose parameters are trained by gradient. Inside, CSI is an image: real [n, 2 (re, im), angle, delay]."""

    target: ClassVar[Literal["x", "z"]]  # what of a batch is to be reconstructed

    @classmethod
    def first_of(cls, fields: Mapping[str, Any]) -> str | None:
        """Name the architecture that is trained or fitted first, and whose weights training starts from; None where there is none.

        :param fields: of the recipe's codec
        """
        return None

    @classmethod
    def settled(cls, fields: Mapping[str, Any], source: Source, training: Training) -> dict[str, Any]:
        """Fields of the config that the data settle, beside shape, side information and target: none, unless a family says otherwise.

        :param fields: of the recipe's codec
        :raises ZooError: the data do not tell what this network asks for
        """
        return {}

    def know(self, source: Source) -> None:
        """Start from what is known of the law of the samples, after :meth:`prepare`: from nothing, unless a family says otherwise."""

    def prepare(self, x: Tensor) -> None:
        """Set what is set before training: the scale, so that nearly every sample's largest real or imaginary part is below 1.

        The papers divide each sample by its own largest part, which a base station does not know. One constant of the
        data set takes its place: the 99 % quantile of the samples' largest parts.

        :param x: training samples, complex [n, angle, delay]
        """
        largest = torch.view_as_real(x).abs().flatten(1).amax(1)
        self.scale.copy_(torch.quantile(largest.double(), 0.99))

    def finish(self, x: Tensor) -> None:
        """Set what is set after training, from samples that it did not see: nothing, unless a family says otherwise.

        :param x: validation samples, complex [n, angle, delay], on the model's device
        """

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Take the weights of a trained model of this sort, or of :meth:`first_of`.

        :raises RuntimeError: they are of another shape or number
        """
        self.load_state_dict(weights)

    @abstractmethod
    def trial(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, str]:
        """What the receiver makes of some samples, for the error in the log: estimate of the target and, in words, at which rate.

        :param x: complex [n, angle, delay]; likewise ``y``
        """

    def draws(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers that the loss of n samples needs, each with n rows: {} where it needs none."""
        return {}

    def observe(self, x: Tensor, start: int) -> dict[str, Tensor]:
        """Note what the loss needs of samples beside themselves and no step changes, each with n rows: {} where it needs nothing.

        :param x: complex [n, angle, delay]
        :param start: number of the first of them
        """
        return {}

    def tend(self, generator: torch.Generator) -> None:
        """Mend what gradients do not reach; called now and then in the first part of training.

        :param generator: on the model's device
        """

    @abstractmethod
    def loss(
        self, x: Tensor, y: Tensor | None, z: Tensor, draws: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss.

        :param x: image of :meth:`to_image`, [n, 2, angle, delay]; likewise ``y`` and the target ``z``
        :param draws: of :meth:`draws` and :meth:`observe`
        :returns: scalar to minimise, and scalars worth a line in the log
        """


class NetworkCodec(Codec[C], Network[C]):
    """A codec whose parameters are trained by gradient."""

    target = "z"

    def trial(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, str]:
        return torch.as_tensor(self.decompress(self.compress(x, effort=0), y)), f"{self.bits} bits"


def relative_error(image: Tensor, target: Tensor) -> Tensor:
    """Error energy over energy of each sample, [n]; its mean is the NMSE.

    The papers divide each sample by its largest entry and take the squared error; dividing by the energy weighs samples alike. Samples
    without energy count nothing.

    :param image: [n, ...]
    :param target: [n, ...]
    """
    own = energy(target)
    return torch.where(own > 0, energy(image - target) / own.clamp(min=torch.finfo(own.dtype).tiny), 0)


def energy(image: Tensor) -> Tensor:
    """Squared norm of each sample in single precision: [n, ...] to [n]."""
    return image.float().square().flatten(1).sum(1)
