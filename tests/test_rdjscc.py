"""JSCC models: symbols, rates, sizes, quantisation, refinement, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.autograd import grad

import zoo
from datagen import Store
from tests.zoo_fixtures import ready, samples
from zoo import config, data, registry
from zoo.bench import bench, macs
from zoo.checkpoint import check, load_codec, save_model
from zoo.errors import CheckError, ZooError
from zoo.evaluate import parameter_count
from zoo.evaluate_jscc import LEAK_BITS, evaluate_jscc, leak_check
from zoo.metrics import bler
from zoo.models.adjscc import ADJSCC, Autoencoder, AutoencoderConfig
from zoo.models.jscc import MU, NetworkJSCC, levels, peak, quantised
from zoo.models.rdjscc import RDJSCC, RDJSCCConfig
from zoo.models.unetjscc import UNetConfig, UNetJSCC, shared
from zoo.nn.quantise import mu_law, mu_law_inverse, uniform_codes, uniform_values
from zoo.nn.residual_diffusion import add_residual_noise
from zoo.nn.snr_gate import SnrGate
from zoo.train import build
from zoo.uplink import Rayleigh, transmit, unit_power

AE: dict[str, Any] = {
    "symbols": (2, 4, 8), "encoder": ((2, 3), (4, 3), (2, 3)), "decoder": ((4, 3), (2, 3)), "decoder_kernel": 3, "blocks": 1,
}  # fmt: skip
UNET: dict[str, Any] = {**AE, "width": 4, "multipliers": (1, 2), "kernel": 3, "norm": "channel"}
DENSE: dict[str, Any] = {
    "symbols": (2, 4, 8), "width": 16, "hidden": 16, "encoder_blocks": 1, "denoiser_blocks": 1,
}  # fmt: skip
SIZES = {"adjscc": AE, "unet-jscc": UNET, "rd-jscc": UNET, "dense-jscc": DENSE}
FAMILIES = list(SIZES)
ENDS = (
    ("autoencoder.encoder.dense.weight", "autoencoder.decoder.dense.weight"),
    ("sender.leave.weight", "head.cells.weight"),
)


def untrained(family: str, **fields: Any) -> NetworkJSCC[Any]:
    """A network of small size with random weights, ready to use."""
    torch.manual_seed(1)
    kind = registry.architecture(family)
    model = kind(kind.Config.model_validate({**SIZES[family], **fields}))
    assert isinstance(model, NetworkJSCC)
    return ready(model)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(model: NetworkJSCC[Any], n: int = 8, seed: int = 0) -> Tensor:
    return model.to_image(samples(n, seed))


# sizes -----------------------------------------------------------------------------------------------------------------------


def numbers(network: nn.Module) -> int:
    """Parameters, and the running moments of normalisation, as the published sizes count."""
    moments = [buffer for name, buffer in network.named_buffers() if "running" in name]
    return sum(weight.numel() for weight in [*network.parameters(), *moments])


@pytest.mark.parametrize(
    ("recipe", "encoder", "decoder"),
    [
        ("adjscc", 152_220, 118_446),  # Table V: 152 K, 118 K
        ("rd-jscc", 152_220, 118_446),
        ("adjscc-large", 152_220, 11_981_386),  # 152 K, 12 M
        ("csinetplus-jscc", 152_159, 117_950),  # 152 K, 118 K
        ("csinetplus-jscc-large", 152_159, 11_873_970),
        ("rd-jscc-paper-ae-small", 66_176, 118_446),  # Table VII
        ("adjscc-indoor", 167_848, 196_806),  # Table VI: 168 K, 197 K
        ("adjscc-indoor-large", 167_848, 1_307_246),  # 168 K, 1.3 M
        ("csinetplus-jscc-indoor", 167_039, 191_155),  # 167 K, 191 K
        ("csinetplus-jscc-indoor-large", 167_039, 1_282_480),
        ("unet-jscc-indoor", 152_220, 118_446),
    ],
)
def test_autoencoders_of_the_recipes_have_the_published_sizes(recipe: str, encoder: int, decoder: int) -> None:
    fields = {
        name: value for name, value in config.load(recipe).codec.items() if name in AutoencoderConfig.model_fields
    }
    with torch.device("meta"):
        network = Autoencoder(AutoencoderConfig(**{**fields, "symbols": (16,)}))
    assert (numbers(network.encoder), numbers(network.decoder)) == (encoder, decoder)


def test_table_ii_as_it_is_printed() -> None:
    with torch.device("meta"):
        network = Autoencoder(AutoencoderConfig(decoder=((16, 7), (24, 5), (2, 3))))
    assert numbers(network.decoder) == 134_446


@pytest.mark.parametrize(
    ("small", "timed", "untimed"),
    [({}, 13_905_602, 13_715_842), ({"width": 32, "multipliers": (1, 2)}, 1_271_906, 1_251_650)],
)
def test_u_nets_have_the_published_sizes(small: dict[str, Any], timed: int, untimed: int) -> None:
    with torch.device("meta"):  # Tables V and VI: 13.9 M and 13.7 M; 1.28 M and 1.25 M
        assert numbers(RDJSCC(RDJSCCConfig(**small)).unet) == timed
        assert numbers(UNetJSCC(UNetConfig(**small)).unet) == untimed


def test_the_encoder_costs_what_it_is_said_to() -> None:
    with torch.device("meta"):
        encoder = Autoencoder(AutoencoderConfig()).encoder.eval()
        x, snr = torch.zeros(1, 2, 32, 32), torch.zeros(1)
    assert macs(lambda: encoder(x, snr)) / 1e6 == pytest.approx(85.4, abs=0.05)


# symbols ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [2, 4, 8])
def test_symbols_of_unit_power_and_back(family: str, k: int) -> None:
    model = untrained(family)
    x = samples(3).numpy()
    s = model.encode(x, snr_db=5, k=k)
    assert s.shape == (3, k)
    assert s.dtype == np.complex64
    assert np.square(np.abs(s)).mean(1) == pytest.approx([1, 1, 1])
    z = model.decode(s, snr_db=5)
    assert z.shape == (3, 32, 32)
    assert z.dtype == np.complex64
    assert np.isfinite(z).all()
    as_torch = model.decode(torch.from_numpy(s), 5)
    assert isinstance(as_torch, Tensor)
    assert (as_torch.numpy() == z).all()
    assert isinstance(model.encode(samples(3), 5, k), Tensor)


def test_a_short_latent_is_the_beginning_of_the_long_one_and_decodes_with_the_rest_zeroed() -> None:
    model = untrained("adjscc")
    assert isinstance(model, ADJSCC)
    long, short = model.encode(samples(3), 0), model.encode(samples(3), 0, k=4)
    ratio = short / long[:, :4]
    assert torch.allclose(ratio, ratio[:, :1].expand_as(ratio), atol=1e-5)  # but for the power of its own
    seen: list[Tensor] = []
    coarse = model.coarse
    model.coarse = lambda received, snr_db: seen.append(received) or coarse(received, snr_db)  # type: ignore[method-assign, func-returns-value]
    model.decode(short, 0)
    assert torch.equal(torch.view_as_complex(seen[0].contiguous()), short)
    padded = model.padded(seen[0])
    assert padded.shape == (3, 8, 2)
    assert not padded[:, 4:].any()
    assert torch.equal(coarse(padded, torch.full((3,), 5.0)), coarse(seen[0], torch.full((3,), 5.0)))


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_are_an_internal_matter(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained(family).double()
    x, snr = samples(7), torch.linspace(-10, 10, 7)
    s = model.encode(x, snr)
    assert s.dtype == torch.complex128
    z = model.decode(s, snr)
    monkeypatch.setattr("zoo.models.base.BATCH", 3)
    assert torch.allclose(model.encode(x, snr), s)
    assert torch.allclose(model.decode(s, snr), z, rtol=1e-9, atol=1e-12)
    assert model.encode(x[:0], 5).shape == (0, 8)
    assert model.decode(s[:0], 5).shape == (0, 32, 32)
    assert model.encode(x[:0], 5, bits=3) == []


def test_the_snr_reaches_encoder_and_decoder_by_the_gates_alone() -> None:
    for gated in (True, False):
        model = untrained("adjscc", gated=gated)
        s = model.encode(samples(2), 5)
        assert torch.equal(model.encode(samples(2), -5), s) != gated
        assert torch.equal(model.decode(s, 5), model.decode(s, -5)) != gated


def test_snr_gate_by_hand() -> None:
    gate = SnrGate(1)
    assert sum(weight.numel() for weight in gate.parameters()) == 33 * 1 + 32
    for weight in gate.parameters():
        nn.init.ones_(weight)
    features = torch.tensor([[[[1.0, 3.0]]]])
    factor = torch.tensor(16 * (2 + 0.5 + 1) + 1.0).sigmoid()  # mean 2, 5 dB = 0.5 B
    assert torch.allclose(gate(features, torch.tensor([5.0])), features * factor)


# costs -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "fields", "steps"),
    [
        ("adjscc", {}, [0]),
        ("unet-jscc", {}, [1]),
        ("rd-jscc", {}, [0, 1, 2, 20]),
        ("rd-jscc", {"decoding_steps": 5}, [0, 1, 2, 5, 20]),
    ],
)
def test_bench_of_each_part(family: str, fields: dict[str, Any], steps: list[int]) -> None:
    model = untrained(family, **fields)
    facts = bench(model, batch=3, seconds=0)
    encoder, decoders = facts["encoder"], facts["decoders"]
    assert [part["steps"] for part in decoders] == steps
    assert all(part["samples_per_second"] > 0 for part in (encoder, *decoders))
    assert encoder["parameters"] == parameter_count(model.get_submodule("autoencoder.encoder"))
    assert encoder["parameters"] + decoders[-1]["parameters"] == facts["parameters"]
    gates = sum(16 * (channels + 1) + 16 * channels for channels in (2, 4, 2))
    assert encoder["macs"] == 9 * 1024 * (2 * 2 + 2 * 4 + 4 * 2) + gates + 2048 * 16
    if family == "rd-jscc":
        assert decoders[0]["parameters"] == parameter_count(model.get_submodule("autoencoder.decoder"))
        each = [(part["macs"] - decoders[0]["macs"]) / part["steps"] for part in decoders[1:]]
        assert len(set(each)) == 1
        assert each[0] > 0


# block errors ----------------------------------------------------------------------------------------------------------------


def test_block_errors_are_a_mean_over_samples(
    small_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, store = tmp_path / "adjscc-cdl-k8", data.Store(small_store.path)
    save_model(
        path, untrained("adjscc"), {"name": path.name, "architecture": "adjscc"}, {"x": samples(4), "y": samples(4, 1)}
    )
    monkeypatch.setattr("zoo.evaluate_jscc.BATCH", 16)  # 40 samples: batches of different sizes
    seen: list[tuple[Any, Any]] = []

    def spied(z: Any, estimate: Any, snr_db: float, subcarriers: int) -> float:
        seen.append((z, estimate))
        return bler(z, estimate, snr_db, subcarriers)

    monkeypatch.setattr("zoo.metrics.bler", spied)
    [point] = evaluate_jscc(path, store, "val", snr_db=[5], symbols=[8], downlink_snr_db=40)["points"]
    assert [len(z) for z, _ in seen] == [16, 16, 8]
    z, estimate = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    assert point["downlink_snr_db"] == 40
    assert 0.01 < point["bler"] < 0.999
    assert point["bler"] == pytest.approx(bler(z, estimate, 40, 667))
    assert point["nmse_db"] == pytest.approx(zoo.nmse_db(z, estimate))
    assert "bler" not in evaluate_jscc(path, store, "val", snr_db=[5], symbols=[8])["points"][0]
    store.dataset = replace(store.dataset, subcarriers=None)
    with pytest.raises(ZooError, match="does not say how many subcarriers its samples are of"):
        evaluate_jscc(path, store, "val", downlink_snr_db=5)


@pytest.fixture
def linear(tmp_path: Path, small_store: Store) -> Path:
    """A code that is worth something without training: principal components."""
    source = data.Cached(data.Store(small_store.path), "cpu", None, seed=0)
    recipe = config.load("adjscc", {f"codec.{name}": value for name, value in AE.items()} | {"codec.linear": True})
    path = tmp_path / "adjscc-cdl-k8"
    save_model(path, build(recipe, source).eval(), {"name": path.name, "architecture": "adjscc"}, {"x": samples(4)})
    return path


def test_nothing_but_symbols_reaches_the_decoder(linear: Path, small_store: Store) -> None:
    store = data.Store(small_store.path)
    found = leak_check(linear, store, "train", 600, k=8, snr_db=10)
    assert found["nmse_db"]["received"] < -3
    assert found["nmse_db"]["shuffled"] > -0.5
    assert found["nmse_db"]["noise"] > -0.5
    assert [row["payload_bits"] for row in found["rounded"]] == [16 * bits for bits in LEAK_BITS]
    errors = [row["nmse_db"] for row in found["rounded"]]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > found["nmse_db"]["received"] + 0.3
    assert errors[-1] == pytest.approx(found["nmse_db"]["received"], abs=0.1)
    assert 60 < found["capacity_bits"] < 80  # 8 log2(1 + 10 * 32), nearly
    with pytest.raises(ZooError, match="two samples or more"):
        leak_check(linear, store, "train", 1)


def test_a_leak_is_seen(linear: Path, small_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, kept = ADJSCC.encode, []

    def leaky(self: ADJSCC, x: Tensor, *arguments: Any) -> Any:
        kept.append(x)
        return encode(self, x, *arguments)

    monkeypatch.setattr(ADJSCC, "encode", leaky)
    monkeypatch.setattr(ADJSCC, "decode", lambda self, received, snr_db: 1.01 * kept[-1])
    found = leak_check(linear, data.Store(small_store.path), "train", 64)["nmse_db"]
    assert found["shuffled"] == found["noise"] == pytest.approx(-40, abs=0.1)


# quantised symbols -----------------------------------------------------------------------------------------------------------


def test_mu_law_by_hand() -> None:
    x = torch.tensor([-1.0, -0.02, 0.0, 0.5, 1.0])
    companded = [math.copysign(math.log(1 + 50 * abs(v)) / math.log(51), v) for v in x.tolist()]
    assert mu_law(x, 50).tolist() == pytest.approx(companded, abs=1e-6)
    assert mu_law_inverse(mu_law(x, 50), 50).tolist() == pytest.approx(x.tolist(), abs=1e-6)


@pytest.mark.parametrize(("bits", "k"), [(1, 2), (3, 4), (4, 8), (6, 8)])
def test_quantised_symbols_are_real_bytes(bits: int, k: int) -> None:
    model = untrained("adjscc")
    payloads = model.encode(samples(5), 5, k=k, bits=bits)
    assert [len(payload) for payload in payloads] == [-(-2 * k * bits // 8)] * 5
    s = model.symbols(payloads, bits, k)
    assert s.shape == (5, k)
    assert np.square(np.abs(s)).mean(1) == pytest.approx(np.ones(5))
    assert model.decode(s, 5).shape == (5, 32, 32)


def test_more_bits_come_nearer() -> None:
    pairs = unit_power(torch.randn(200, 8, 2, generator=generator()))
    errors = [(levels(quantised(pairs, bits), bits) - pairs).square().mean().item() for bits in (2, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] < 0.03 * 0.5  # of the power of a real part: 4 bits are nearly free
    assert levels(quantised(torch.tensor([99.0]), 8), 8).item() == pytest.approx(peak(8), rel=0.02)


@pytest.mark.parametrize(("bits", "best_db"), [(2, -9.30), (3, -14.62), (4, -20.22), (6, -31.89)])
def test_quantisation_of_gaussian_symbols_is_near_the_least_error(bits: int, best_db: float) -> None:
    """Of Lloyd-Max scalars (J. Max, "Quantizing for minimum distortion", 1960, table I; 6 bits by our own)."""
    x = torch.randn(200_000, generator=generator()) / math.sqrt(2)
    error = (levels(quantised(x, bits), bits) - x).square().mean() / x.square().mean()
    assert best_db < 10 * math.log10(error) < best_db + 1.2


def test_the_papers_companding_costs_gaussian_symbols_four_decibels() -> None:
    x, peak_of_both = torch.randn(200_000, generator=generator()) / math.sqrt(2), peak(4)

    def error_db(mu: float) -> float:
        codes = uniform_codes(mu_law((x / peak_of_both).clamp(-1, 1), mu), 4)
        values = peak_of_both * mu_law_inverse(uniform_values(codes, 4), mu)
        return 10 * math.log10((values - x).square().mean() / x.square().mean())

    assert error_db(50.0) - error_db(MU) == pytest.approx(4, abs=0.3)


def test_quantisation_passes_gradients_straight_through() -> None:
    model = untrained("adjscc", bits=2).requires_grad_(True).train()
    x = images(model)
    draws = model.draws(8, generator())
    loss, _ = model.loss(x, None, x, draws)
    (gradient,) = grad(loss, [model.get_parameter("autoencoder.encoder.dense.weight")])
    assert gradient.any()


# the link --------------------------------------------------------------------------------------------------------------------


class Halved:
    """Channels of ||h|| = 1/2 and no noise but a constant, by way of :func:`zoo.uplink.transmit`'s own generator."""

    def sample(self, n: int, k: int, generator: torch.Generator) -> Tensor:
        return torch.full((n, 1, k), 0.5, dtype=torch.complex64)


def test_training_sees_the_channels_of_the_model() -> None:
    model = untrained("adjscc", snr_db=(5.0, 5.0))
    model.channel = Halved()  # type: ignore[misc]
    x = images(model, 200)
    draws = model.draws(200, generator())
    sent = torch.view_as_real(model.encode(samples(200), 5))
    noise = model.received(x, draws)[-1] - sent
    assert noise.square().sum(-1).mean().item() == pytest.approx(4 * 10 ** (-5 / 10), rel=0.1)
    model.channel = Rayleigh(flat=False)  # type: ignore[misc]
    assert model.draws(200, generator())["disturbance"].square().sum(-1).mean().item() == pytest.approx(1 / 31, rel=0.1)


def test_an_imperfect_estimate_has_its_cnr() -> None:
    model = untrained("adjscc", cnr_db=(10.0, 10.0))
    x = images(model, 50)
    seen: list[Tensor] = []
    latent = model.latent
    model.latent = lambda image, snr_db: seen.append(image) or latent(image, snr_db)  # type: ignore[method-assign, func-returns-value]
    model.received(x, model.draws(50, generator()))
    assert ((seen[0] - x).square().sum() / x.square().sum()).item() == pytest.approx(0.1, rel=0.02)


# refinement ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", ["estimate", "noise"])
def test_steps_of_refinement(begin: str) -> None:
    model = untrained("rd-jscc", begin=begin)
    assert isinstance(model, RDJSCC)
    s = model.encode(samples(3), 5)
    estimates = [model.decode(s, 5, steps) for steps in (0, 1, 2, 20)]
    assert torch.equal(model.decode(s, 5), estimates[2])
    assert all(not torch.allclose(first, estimates[3]) for first in estimates[:3])
    assert torch.equal(
        model.decode(s[[2, 0]], 5), estimates[2][[2, 0]]
    )  # a function of the symbols, whatever stands beside them
    coarse = model.coarse(torch.view_as_real(s), torch.full((3,), 5.0))
    assert torch.equal(estimates[0], model.from_image(coarse))


def test_a_perfect_denoiser_gives_the_truth_and_no_loss() -> None:
    model = untrained("rd-jscc")
    assert isinstance(model, RDJSCC)
    truth = images(model, 4).clamp(-1, 1)
    model.denoise = lambda z, coarse, time: truth  # type: ignore[method-assign]
    for steps in (1, 2, 20):
        assert torch.equal(model.refine(torch.zeros_like(truth), steps), truth)
    assert model.loss(truth, None, truth, model.draws(4, generator()))[0] == 0


def test_the_denoiser_is_trained_on_equation_10() -> None:
    model = untrained("rd-jscc", symbols=(8,))
    assert isinstance(model, RDJSCC)
    x, draws = images(model, 4), model.draws(4, generator())
    draws["time"] = torch.tensor([1, 3, 7, 10])
    coarse = model.coarse(model.received(x, draws)[0], draws["snr_db"])
    level = torch.tensor([model.level(t) for t in (1, 3, 7, 10)])
    wanted = add_residual_noise(x, coarse, draws["noise"], level, 0.988)
    seen: list[Tensor] = []
    model.denoise = lambda z, coarse, time: seen.append(z) or torch.zeros_like(z)  # type: ignore[method-assign, func-returns-value]
    loss, _ = model.loss(x, None, x, draws)
    assert torch.allclose(seen[0], wanted, atol=1e-3)
    assert loss.item() == pytest.approx(
        (level / (1 - level)).clamp(max=5).mean().item()
    )  # estimating nothing errs by 1
    generative = untrained("rd-jscc", begin="noise", start=20)
    assert isinstance(generative, RDJSCC)
    assert generative.weight == 0
    assert set(generative.draws(500, generator())["time"].tolist()) == set(range(1, 21))


def test_rates_take_turns() -> None:
    rates = [torch.full((5, 1), float(k)) for k in (8, 16, 32)]
    turn = untrained("unet-jscc").draws(5, generator())["turn"]
    assert shared(rates, turn).flatten().tolist() == [8, 16, 32, 8, 16]


# gradients -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("adjscc", {}), ("unet-jscc", {}), ("rd-jscc", {}), ("rd-jscc", {"objective": "sampler"}), ("rd-jscc", {"begin": "noise"}),
        ("dense-jscc", {}), ("dense-jscc", {"align": False}), ("dense-jscc", {"refinement": "generative"}),
        ("dense-jscc", {"refinement": "direct", "decoding_steps": 1}), ("dense-jscc", {"refinement": None, "decoding_steps": 0}),
    ],
)  # fmt: skip
def test_the_loss_trains_every_weight_but_those_that_are_frozen(family: str, fields: dict[str, Any]) -> None:
    kind = registry.architecture(family)
    frozen = {
        name for name, weight in kind(kind.Config(**SIZES[family])).named_parameters() if not weight.requires_grad
    }
    assert {name.split(".")[0] for name in frozen} == ({"autoencoder"} if family == "rd-jscc" else set())
    model = untrained(family, **fields).train()
    weights = {name: weight for name, weight in model.named_parameters() if name not in frozen}
    for weight in weights.values():
        weight.requires_grad_(True)
    x = images(model)
    loss, _ = model.loss(x, None, x, model.draws(8, generator()))
    for name, gradient in zip(weights, grad(loss, list(weights.values())), strict=True):
        assert torch.isfinite(gradient).all(), name
        assert gradient.any() or name.endswith("conv.bias"), name  # which normalisation takes away again


def test_the_first_stage_stays_as_it_is_in_training_mode() -> None:
    model = untrained("rd-jscc").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = images(model)
    model.loss(x, None, x, model.draws(8, generator()))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_of_two_stages_starts_from_its_first() -> None:
    first, model = untrained("adjscc"), untrained("rd-jscc")
    own = {name: value.clone() for name, value in model.state_dict().items()}
    for value in first.parameters():
        nn.init.normal_(value)
    model.start_from(first.state_dict())
    for name, value in model.state_dict().items():
        source = own if name.startswith(("unet.", "noise", "rule")) else first.state_dict()
        assert torch.equal(value, source[name]), name
    with pytest.raises(RuntimeError, match="Missing key"):
        model.start_from({"scale": torch.ones(())})


# a linear code to start from -------------------------------------------------------------------------------------------------


def spread(n: int, seed: int = 0) -> Tensor:
    """Samples of nine independent components, each at a place of its own, of falling energy; the rest is empty."""
    x = torch.zeros(n, 32, 32, dtype=torch.complex64)
    strengths = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, 1])
    x[:, :3, :3] = (torch.randn(n, 9, dtype=torch.complex64, generator=generator(seed)) * strengths).view(n, 3, 3)
    return x


def test_a_linear_code_is_where_training_starts() -> None:
    torch.manual_seed(3)
    model = ADJSCC(AutoencoderConfig(**{**AE, "linear": True}))
    model.prepare(spread(4000))
    model.eval()
    x = spread(500, 1)
    symbols = torch.as_tensor(model.encode(x, 5))
    places = x[:, :3, :3].flatten(1)
    share = torch.linalg.lstsq(places / torch.linalg.vector_norm(places, dim=1, keepdim=True), symbols).solution
    sizes, order = share.abs().max(0)
    assert order.tolist() == list(range(8))  # strongest first
    assert (share.abs().square().sum(0) - sizes.square() < 0.05 * sizes.square()).all()  # a symbol is one component
    ratios = sizes / sizes[0] * torch.arange(9, 1, -1).sqrt() / 3  # turned down by the root of its strength
    assert torch.allclose(ratios, torch.ones(8), atol=0.15)
    errors = [zoo.nmse_db(x.numpy(), model.decode(model.encode(x, 30, k), 30).numpy()) for k in (2, 8)]
    assert errors[0] < -1.5  # of 285 parts of the energy, 2 components hold 145, and 8 all but 1
    assert errors[1] < -9
    assert not model.autoencoder.encoder.dense.bias.any()


def test_layers_beside_a_linear_code_are_trained_from_nothing() -> None:
    model = ADJSCC(AutoencoderConfig(**{**AE, "linear": True}))
    model.prepare(spread(200))
    x, snr = images(model, 4), torch.zeros(4)
    encoder = model.autoencoder.encoder
    assert torch.equal(encoder.layers(x, snr), x)
    last = encoder.layers.layers[-1].get_parameter("norm.weight")
    assert grad(model.loss(x, None, x, model.draws(4, generator()))[0], last)[0].any()


@pytest.mark.parametrize("fields", [{"encoder": ((2, 3), (4, 3))}])
def test_a_linear_code_needs_an_encoder_of_its_shape(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="must have 2 channels"):
        AutoencoderConfig(**{**AE, **fields, "linear": True})


def test_an_encoder_may_choose_its_delay_rows() -> None:
    torch.manual_seed(3)
    model = ADJSCC(AutoencoderConfig(**{**AE, "linear": True, "rows": True}))
    model.prepare(spread(500))
    model.eval()
    plain = ADJSCC(AutoencoderConfig(**{**AE, "linear": True}))
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "row_gate" not in name})
    x, snr = images(model, 4), torch.zeros(4)
    even = model.latent(x, snr)
    assert torch.allclose(even, plain.eval().latent(x, snr), atol=1e-4)  # weights alike are no weights
    gate = model.autoencoder.encoder.row_gate
    assert gate is not None
    with torch.no_grad():
        for name, value in gate.named_parameters():
            value.fill_(-30.0 if name == "weights.2.bias" else 0.0)
        gate.get_parameter("weights.2.bias")[1] = 30.0  # one row alone
    empty = x.clone()
    empty[..., 1] = 0
    chosen, other = model.latent(x, snr), model.latent(x + empty, snr)
    assert not torch.allclose(chosen, even, atol=1e-2)
    assert torch.allclose(chosen, other, atol=1e-3)


# whether to refine -----------------------------------------------------------------------------------------------------------


def test_refinement_is_chosen_where_it_has_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    model = untrained("rd-jscc")
    x = model.to_image(samples(400))
    noise = torch.randn(x.shape, generator=generator())

    def coarse(received: Tensor, snr_db: Tensor) -> Tensor:  # noise as strong as the link's, on what was sent
        energy = x[: len(received)].square().mean().sqrt()
        return x[: len(received)] + energy * noise[: len(received)] * 10 ** (-snr_db / 20)[:, None, None, None]

    monkeypatch.setattr(model, "coarse", coarse)
    monkeypatch.setattr(model, "refine", lambda image, steps: image if steps == 0 else image / 2)
    monkeypatch.setattr("zoo.models.base.BATCH", 400)
    model.finish(samples(400))  # halving pays where noise exceeds a third of the signal: below 4.8 dB
    for k in model.config.symbols:
        sent = model.encode(samples(400), 5, k)
        shares = [float(model.worth_refining(sent, snr).float().mean()) for snr in (-10, 0, 9)]
        assert shares == [1, 1, 0]
        assert torch.equal(model.decode(sent, -10, "auto"), model.decode(sent, -10))
        assert torch.equal(model.decode(sent, 9, "auto"), model.decode(sent, 9, 0))


def test_each_sample_is_refined_or_not_by_itself() -> None:
    model = untrained("rd-jscc")
    assert model.decode(model.encode(samples(3), 5), 5, "auto").shape == (3, 32, 32)
    model.get_buffer("rule")[:, 1] = 1.0  # positive where the SNR is
    sent, snr = model.encode(samples(4), 5), torch.tensor([-3.0, 3.0, -6.0, 6.0])
    assert model.worth_refining(sent, snr).tolist() == [False, True, False, True]
    mixed = model.decode(sent, snr, "auto")
    for refined, steps in (
        (slice(1, None, 2), None),
        (slice(0, None, 2), 0),
    ):  # some processors round by the samples beside
        torch.testing.assert_close(mixed[refined], model.decode(sent, snr, steps)[refined], rtol=1e-4, atol=1e-6)
    assert isinstance(model.worth_refining(sent.numpy(), 5), np.ndarray)


def test_what_the_link_leaves_is_decoded_as_it_is() -> None:
    model = untrained("rd-jscc")
    sent = model.encode(samples(3).numpy(), 5)
    received = transmit(sent, 5, channel=Rayleigh(), generator=generator())
    assert torch.equal(model.decode(received, 5), model.decode(received.symbols, 5))
    assert not model.worth_refining(received, 5).any()


def test_models_without_a_choice_take_their_fewest_steps() -> None:
    for family in ("adjscc", "unet-jscc"):
        model = untrained(family)
        sent = model.encode(samples(2), 5)
        assert not model.worth_refining(sent, 5).any()
        assert torch.equal(model.decode(sent, 5, "auto"), model.decode(sent, 5))


def test_results_say_how_many_were_refined(tmp_path: Path, small_store: Store) -> None:
    model, path, store = untrained("rd-jscc"), tmp_path / "rd-jscc-cdl-k8", data.Store(small_store.path)
    model.get_buffer("rule")[:, 1] = 1.0
    save_model(path, model, {"name": path.name, "architecture": "rd-jscc"}, {"x": samples(4)})
    found = evaluate_jscc(path, store, "val", 40, snr_db=[-5, 5], symbols=[8], steps=[0, 2, "auto"])["points"]
    level = {(point["snr_db"], point["steps"]): point for point in found}
    assert [level[snr, "auto"]["refined_share"] for snr in (-5, 5)] == [0, 1]
    assert [level[snr, "auto"]["nmse_db"] for snr in (-5, 5)] == [level[-5, 0]["nmse_db"], level[5, 2]["nmse_db"]]
    assert "refined_share" not in level[5, 2]


# on disk ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_models_are_saved_loaded_and_checked(family: str, tmp_path: Path) -> None:
    model, path = untrained(family), tmp_path / f"{family}-cdl-k8"
    for dtype in ("float32", "float16"):
        save_model(
            path, model, {"name": path.name, "architecture": family}, {"x": samples(4), "y": samples(4, 1)}, dtype
        )
        loaded = zoo.load(path)
        assert isinstance(loaded, zoo.JSCC)
        assert check(path, loaded) < 1e-6
        assert check(path, zoo.load(path, dtype="float64")) < 1e-4
    changed = zoo.load(path)
    encoder, decoder = ENDS[family == "dense-jscc"]
    with torch.no_grad():
        changed.get_parameter(decoder).mul_(1.2)
    with pytest.raises(CheckError, match="golden reconstructions differ"):
        check(path, changed)
    with torch.no_grad():
        changed.get_parameter(encoder)[0].mul_(1.2)
    with pytest.raises(CheckError, match="golden symbols differ"):
        check(path, changed)
    with pytest.raises(ZooError, match="sends symbols over a radio link, not payloads"):
        load_codec(path)


def test_a_codec_is_not_measured_over_a_link(small_model: Path, small_store: Store) -> None:
    with pytest.raises(ZooError, match="csinet-tiny-66b sends payloads, not symbols"):
        evaluate_jscc(small_model, data.Store(small_store.path), "val")


# bad input -------------------------------------------------------------------------------------------------------------------

GOOD = samples(2).numpy()
SENT = np.ones((2, 8), np.complex64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model: model.encode(GOOD.real, 5), r"x is float32 \[2, 32, 32\]"),
        (lambda model: model.encode(GOOD, 5, k=3), "3 symbols are not served; this model has k of 2, 4, 8"),
        (lambda model: model.encode(GOOD, [1, 2, 3]), "snr_db must be a finite number of decibels, or 2 of them"),
        (lambda model: model.encode(GOOD, math.nan), "snr_db must be a finite number"),
        (lambda model: model.encode(GOOD, "loud"), "snr_db must be a finite number"),
        (lambda model: model.encode(GOOD, 5, bits=17), "bits = 17: a real dimension takes 1 to 16"),
        (lambda model: model.symbols([b"abc"], 4), "payload 0 has 3 bytes; this code of 64 bits has 8"),
        (lambda model: model.decode(SENT[:, :7], 5), "7 symbols are not served"),
        (lambda model: model.decode(SENT.real, 5), r"received is float32 \[2, 8\]; this model takes complex \[n, k\]"),
        (lambda model: model.decode(SENT * np.nan, 5), "received holds values that are not finite"),
        (lambda model: model.decode(SENT, 5, steps=1), "steps 1 is out of range: this model decodes in 0 to 0"),
    ],
)
def test_bad_input_is_refused(call: Any, words: str) -> None:
    with pytest.raises(ZooError, match=words):
        call(untrained("adjscc"))


def test_the_supervised_u_net_is_no_choice() -> None:
    with pytest.raises(ZooError, match="steps 0 is out of range: this model decodes in 1 to 1"):
        untrained("unet-jscc").decode(SENT, 5, steps=0)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"symbols": (16, 8)}, "must be positive and rise"),
        ({"snr_db": (5.0, -5.0)}, r"snr_db \(5.0, -5.0\) must be \(low, high\)"),
        ({"encoder": ((2, 4),)}, "kernels odd"),
        ({"decoder": ((8, 3),)}, "must have 2 channels"),
        ({"kernel": 4}, "kernel 4 must be odd"),
        ({"delays": 20}, "multiples of 8"),
        ({"start": 21}, "start 21 exceeds the 20 steps"),
        ({"objective": "sampler", "decoding_steps": 0}, "of which there are none"),
        ({"side_information": True}, "Extra inputs are not permitted"),
    ],
)
def test_configs_that_cannot_be_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RDJSCCConfig.model_validate(fields)


def test_adjscc_is_the_first_stage_of_rd_jscc() -> None:
    assert registry.architecture(RDJSCC.first_of({})) is ADJSCC
    assert issubclass(RDJSCCConfig, AutoencoderConfig)
