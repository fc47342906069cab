"""The network codecs: payloads, sizes, number formats, gradients, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import grad

from tests.zoo_fixtures import NETWORKS, samples, untrained
from zoo.errors import ZooError
from zoo.models.csinet import CsiNet, ScalarConfig
from zoo.models.gdcsi import GDCSI, GDCSIConfig
from zoo.models.gdcsi.unet import UNetBackbone
from zoo.nn.quantise import Codebook, straight_through, uniform_codes, uniform_values
from zoo.nn.unet import Norm


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def relative(estimate: Any, reference: Any) -> float:
    return float(np.linalg.norm(estimate - reference) / np.linalg.norm(reference))


# payloads --------------------------------------------------------------------------------------------------------------------

RATES = [(family, rate) for family in ("csinet", "crnet") for rate in (66, 132, 192, 258)]
RATES += [(family, rate) for family in ("gd-csi", "gd-csi-paper") for rate in (64, 128, 192, 256, 320)]


@pytest.mark.parametrize(("family", "rate"), RATES)
def test_payload_has_the_bytes_that_its_rate_takes(family: str, rate: int) -> None:
    codec = untrained(family, rate=rate)
    payloads = codec.compress(samples(3))
    assert codec.bits == rate
    assert [len(payload) for payload in payloads] == [-(-rate // 8)] * 3
    assert len(set(payloads)) == 3
    z = codec.decompress(payloads, samples(3, 1).numpy())
    assert z.shape == (3, 32, 32)
    assert z.dtype == np.complex64
    assert np.isfinite(z).all()


@pytest.mark.parametrize("family", NETWORKS)
def test_batches_are_an_internal_matter(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = untrained(family).double()
    x, y = samples(7), samples(7, 1).numpy()
    payloads = codec.compress(x)
    z = codec.decompress(payloads, y)
    assert z.dtype == np.complex128
    monkeypatch.setattr("zoo.models.base.BATCH", 3)
    assert codec.compress(x) == payloads
    assert relative(codec.decompress(payloads, y), z) < 1e-9


@pytest.mark.parametrize("family", NETWORKS)
def test_double_precision_gives_the_same_codes_and_nearly_the_same_values(family: str) -> None:
    single, double = untrained(family), untrained(family).double()
    x, y = samples(20), samples(20, 1).numpy()
    payloads = single.compress(x)
    assert double.compress(x) == payloads
    assert relative(single.decompress(payloads, y), double.decompress(payloads, y)) < 1e-4


@pytest.mark.parametrize("family", NETWORKS)
def test_numpy_and_torch_go_in_and_come_out(family: str) -> None:
    codec = untrained(family)
    x, y = samples(3), samples(3, 1)
    frozen = x.numpy().copy()
    frozen.setflags(write=False)
    payloads = codec.compress(x)
    assert codec.compress(frozen) == payloads
    assert codec.compress(x.numpy().astype(">c16")) == payloads
    as_torch, as_numpy = codec.decompress(payloads, y), codec.decompress(payloads, y.numpy())
    assert isinstance(as_torch, torch.Tensor)
    assert isinstance(as_numpy, np.ndarray)
    assert (as_torch.numpy() == as_numpy).all()
    assert codec.compress(x[:0]) == []
    assert codec.decompress([], y[:0].numpy()).shape == (0, 32, 32)


@pytest.mark.parametrize("family", NETWORKS)
def test_side_information_and_payload_both_reach_the_estimate(family: str) -> None:
    codec = untrained(family)
    first, second = codec.compress(samples(2))
    y = samples(2, 1).numpy()
    z = codec.decompress([first, first, second], y[[0, 1, 0]])
    assert relative(z[1], z[0]) > 1e-4
    assert relative(z[2], z[0]) > 1e-4


OWN = {"target": "x", "side_information": False}  # the UE's own sample, by the payload alone

# bad input -------------------------------------------------------------------------------------------------------------------

GOOD = samples(2).numpy()
BAD = [
    (GOOD[0], r"x is complex64 \[32, 32\]; this codec takes complex \[n, 32 angles, 32 delays\]"),
    (GOOD[:, :, :16], r"x is complex64 \[2, 32, 16\]"),
    (GOOD.real.copy(), r"x is float32 \[2, 32, 32\]"),
    (np.stack((GOOD.real, GOOD.imag), 1), r"x is float32 \[2, 2, 32, 32\]"),
    (np.where(np.arange(32) == 5, np.nan, GOOD), "x holds values that are not finite"),
    (GOOD * np.inf, "x holds values that are not finite"),
]


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's, while this test makes its infinities
@pytest.mark.parametrize(("x", "words"), BAD)
def test_bad_samples_are_refused(x: np.ndarray, words: str) -> None:
    codec = untrained("csinet")
    with pytest.raises(ZooError, match=words):
        codec.compress(x)
    with pytest.raises(ZooError, match=words.replace("x ", "side_information ", 1)):
        codec.decompress(codec.compress(GOOD), x)


@pytest.mark.parametrize("family", NETWORKS)
def test_side_information_is_missing_superfluous_or_of_another_number(family: str) -> None:
    codec, blind = untrained(family), untrained(family, side_information=False)
    payloads = codec.compress(GOOD)
    with pytest.raises(ZooError, match="decodes with side information"):
        codec.decompress(payloads)
    with pytest.raises(ZooError, match="takes no side information"):
        blind.decompress(blind.compress(GOOD), GOOD)
    with pytest.raises(ZooError, match="2 payloads but 1 samples of side information"):
        codec.decompress(payloads, GOOD[:1])
    assert blind.decompress(blind.compress(GOOD)).shape == GOOD.shape


@pytest.mark.parametrize("family", NETWORKS)
def test_payloads_of_another_rate_are_refused(family: str) -> None:
    other = untrained(family, rate=192).compress(GOOD)
    with pytest.raises(ZooError, match=r"payload 0 has 24 bytes; this code of 6. bits has [89]"):
        untrained(family).decompress(other, GOOD)


@pytest.mark.parametrize(
    ("config", "fields", "words"),
    [
        (ScalarConfig, {"rate": 64}, "rate 64 is no multiple of element_bits 6; nearest: 60, 66"),
        (GDCSIConfig, {"rate": 100}, "rate 100 must be a multiple of 64"),
        (GDCSIConfig, {"rate": 64 * 17}, "at most 1024"),
        (GDCSIConfig, {"rate": 128, "rates": (64, 192)}, "must hold rate 128"),
        (GDCSIConfig, {"decoding_steps": 5}, "decoding_steps 5 exceed the 4"),
        (GDCSIConfig, {"kernel": 4}, "kernel 4 must be odd"),
        (GDCSIConfig, {"delays": 20}, "multiples of 8"),
        (GDCSIConfig, {"widht": 64}, "Extra inputs are not permitted"),
        (GDCSIConfig, {"align": True}, 'align does not apply: it goes with backbone = "dense"'),
        (GDCSIConfig, {"backbone": "dense", "kernel": 3}, 'kernel does not apply: it goes with backbone = "unet"'),
        (
            GDCSIConfig,
            {"backbone": "dense", "steps": 1, "decoding_steps": 1},
            'objective = "diffusion" takes at least 2 steps',
        ),
        (GDCSIConfig, {"backbone": "dense", "effort": 1}, "effort 1 must be 0"),
        (GDCSIConfig, {"backbone": "dense", "taps": 33}, "taps 33 must be at most the 32 delays"),
        (
            GDCSIConfig,
            {"backbone": "dense", "align": True, "energy_bits": 3, "rate": 15},
            "rate 15 must be at least 16",
        ),
        (GDCSIConfig, {"backbone": "dense", "encoder": "profile"}, "estimates X by the payload alone"),
        (GDCSIConfig, {"backbone": "dense", **OWN, "encoder": "profile", "rate": 32}, "must be 64 and up"),
        (GDCSIConfig, {"backbone": "dense", **OWN, "encoder": "profile", "delays": 16}, "shifts 8 must be under half"),
        (
            GDCSIConfig,
            {"backbone": "dense", **OWN, "encoder": "profile", "energy_bits": 2},
            "energy_bits does not apply",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(config: type[ScalarConfig], fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config.model_validate(fields)


# sizes -----------------------------------------------------------------------------------------------------------------------


def millions(network: torch.nn.Module) -> float:
    return round(sum(weight.numel() for weight in network.parameters()) / 1e6, 2)


@pytest.mark.parametrize(("norm", "unet", "total"), [("element", 13.99, 15.19), ("channel", 12.41, 13.13)])
def test_gd_csi_has_the_published_number_of_parameters(norm: Norm, unet: float, total: float) -> None:
    with torch.device("meta"):
        codec = GDCSI(GDCSIConfig(side_information=False, norm=norm))
    assert isinstance(codec.net, UNetBackbone)
    assert millions(codec.net.unet) == unet
    assert millions(codec) == total


def test_csinet_has_the_number_of_parameters_that_its_page_states() -> None:
    assert sum(weight.numel() for weight in CsiNet(ScalarConfig()).parameters()) == 95_820


# several rates in one network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [64, 192])
@pytest.mark.parametrize("family", ["gd-csi", "gd-csi-paper"])
def test_a_multirate_network_ships_as_one_codec_a_rate(family: str, rate: int) -> None:
    shared = untrained(family, rate=rate, rates=(64, 128, 192))
    assert isinstance(shared, GDCSI)
    if isinstance(shared.net, UNetBackbone):
        assert shared.net.embedding is not None
        torch.nn.init.normal_(shared.net.embedding.weight, generator=generator())
    single = shared.at(rate)
    assert single.config.rates == ()
    x, y = samples(5), samples(5, 1).numpy()
    payloads = shared.compress(x)
    assert len(payloads[0]) == rate // 8
    assert single.compress(x) == payloads
    assert relative(single.decompress(payloads, y), shared.decompress(payloads, y)) < 1e-5
    assert [codec.bits for codec in shared.singles()] == [64, 128, 192]
    with pytest.raises(ZooError, match="rate 256 is not one of 64, 128, 192"):
        shared.at(256)


# gradients -------------------------------------------------------------------------------------------------------------------


def test_straight_through_is_the_quantised_value_with_the_gradient_of_the_input() -> None:
    x = torch.tensor([0.2, -0.7], requires_grad=True)
    quantised = torch.tensor([0.25, -0.75], requires_grad=True)
    sent = straight_through(x, quantised)
    assert sent.tolist() == pytest.approx([0.25, -0.75])
    of_x, of_quantised = grad((sent * torch.tensor([2.0, 3.0])).sum(), (x, quantised), allow_unused=True)
    assert of_x.tolist() == [2.0, 3.0]
    assert of_quantised is None


def test_uniform_quantiser_has_equal_cells_over_the_whole_range() -> None:
    x = torch.linspace(-1, 1, 1001)
    codes = uniform_codes(x, 3)
    assert (uniform_values(codes, 3) - x).abs().max() <= 1 / 8 + 1e-6
    assert set(codes.tolist()) == set(range(8))
    assert uniform_codes(torch.tensor([-9.0, 9.0]), 3).tolist() == [0, 7]
    assert uniform_values(torch.arange(4), 2).tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_codebook_gradients() -> None:
    book = Codebook(2, 2)
    book.words.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    x = torch.tensor([[0.9, 0.6], [0.2, -0.1]], requires_grad=True)
    sent, loss = book.quantise(x)
    assert book.codes(x).tolist() == [1, 0]
    assert torch.allclose(sent, book.words[[1, 0]])
    of_x, of_words = grad(sent.sum(), (x, book.words), retain_graph=True, allow_unused=True)
    assert of_x.tolist() == [[1, 1], [1, 1]]  # straight through
    assert of_words is None
    assert loss.tolist() == pytest.approx([2 * (0.01 + 0.16), 2 * (0.04 + 0.01)])
    pull = 2 * torch.tensor([[-0.1, -0.4], [0.2, -0.1]])  # of each squared distance, on x; on its word the opposite
    of_x, of_words = grad(loss.sum(), (x, book.words))
    assert torch.allclose(of_x, pull)
    assert torch.allclose(of_words, -pull[[1, 0]])


def test_codebook_finds_the_nearest_word() -> None:
    torch.manual_seed(0)
    book, x = Codebook(16, 5), torch.randn(40, 3, 5)
    assert (book.codes(x) == torch.cdist(x, book.words).argmin(-1)).all()


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("csinet", {}),
        ("crnet", {}),
        *((family, {}) for family in ("gd-csi", "gd-csi-paper")),
        *((family, {"objective": "sampler"}) for family in ("gd-csi", "gd-csi-paper")),
        *((family, {"rates": (64, 128)}) for family in ("gd-csi", "gd-csi-paper")),
    ],
)
def test_the_loss_trains_every_weight(family: str, fields: dict[str, Any]) -> None:
    codec = untrained(family, **fields).requires_grad_(True).train()
    x, y, z = (codec.to_image(samples(16, seed)) for seed in (0, 1, 2))
    loss, _ = codec.loss(x, y, z, codec.draws(16, generator()))
    assert loss.ndim == 0
    weights = dict(codec.named_parameters())
    for name, gradient in zip(
        weights, grad(loss, list(weights.values())), strict=True
    ):  # refuses what the loss does not depend on
        assert torch.isfinite(gradient).all(), name
        assert gradient.any(), name


def test_diffusion_loss_of_a_perfect_network_is_the_codebook_term() -> None:
    codec = untrained("gd-csi-paper", codebook_weight=0.01)
    assert isinstance(codec.net, UNetBackbone)
    x, y, z = (codec.to_image(samples(6, seed)) for seed in (0, 1, 2))
    draws = codec.draws(6, generator())
    assert set(draws["time"].tolist()) <= {1, 2, 3, 4}
    codec.net.unet.forward = lambda *_: z  # type: ignore[method-assign]
    loss, logs = codec.loss(x, y, z, draws)
    assert logs["codebook"] > 0
    assert loss.item() == pytest.approx(0.01 * logs["codebook"].item())


def test_diffusion_loss_weighs_times_by_their_signal_to_noise_ratio() -> None:
    codec = untrained("gd-csi-paper", codebook_weight=0.0)
    assert isinstance(codec.net, UNetBackbone)
    x, y, z = (codec.to_image(samples(4, seed)) for seed in (0, 1, 2))
    draws = {"time": torch.tensor([1, 2, 3, 4]), "noise": torch.randn(4, 2, 32, 32, generator=generator())}
    codec.net.unet.forward = lambda *_: torch.zeros(4, 2, 32, 32)  # type: ignore[method-assign]
    loss, _ = codec.loss(x, y, z, draws)
    assert loss.item() == pytest.approx((5 + 0.976 + 0.169 + 1.4e-4) / 4, rel=5e-3)  # estimating nothing errs by 1
