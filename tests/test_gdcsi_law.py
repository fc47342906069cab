"""GD-CSI behind the conditional mean by a law in closed form."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import zoo
from zoo import config, data
from zoo.checkpoint import check
from zoo.errors import ZooError
from zoo.models.gdcsi import GDCSI
from zoo.models.gdcsi import law as module
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.models.gdcsi.law import LawBackbone, Mixture, lloyd, spread_over, waterfilled
from zoo.models.klt_grid import Decoder
from zoo.train import build, train

RATES = (24, 36)
CHANGES: dict[str, Any] = {
    "codec.rates": RATES, "codec.rate": 24, "codec.width": 16, "codec.hidden": 16, "codec.decoder_blocks": 1, "codec.code_size": 4,
    "training.steps": 3, "training.batch": 8, "training.validation_samples": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def source() -> data.Simulated:
    return data.Simulated(None, "cpu")


@pytest.fixture(scope="module")
def started(source: data.Simulated) -> GDCSI:
    """Both rates as training starts them, but for the transform's fit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STEPS", 0)
        codec = build(config.load("gd-csi-law", CHANGES), source)
    assert isinstance(codec, GDCSI)
    return codec.eval().requires_grad_(False)


@pytest.fixture
def codec(started: GDCSI) -> GDCSI:
    """Networks that say something."""
    codec = copy.deepcopy(started)
    for weight in codec.parameters():
        if not weight.any():
            torch.nn.init.normal_(weight, std=0.05)
    return codec


@pytest.fixture(scope="module")
def batch(source: data.Simulated) -> data.Batch:
    return source.validation(200)


def nmse(z: Any, target: Tensor) -> float:
    error = torch.as_tensor(z) - target
    return float((error.abs().square().sum((1, 2)) / target.abs().square().sum((1, 2))).mean())


def test_it_starts_as_an_estimate_that_beats_what_networks_learn_in_an_hour(started: GDCSI, batch: data.Batch) -> None:
    errors = []
    for single in started.singles():
        payloads = single.compress(batch.x)
        assert {len(payload) for payload in payloads} == {-(-single.bits // 8)}
        errors.append(nmse(single.decompress(payloads, batch.y), batch.z))
    assert errors[1] < errors[0] < 0.4


def test_the_mixture_is_the_decoder_of_klt_grid(started: GDCSI) -> None:
    net = started.net
    assert isinstance(net, LawBackbone)
    law, part = net._law(), net._rate(36)
    transform = torch.view_as_complex(part.transform.double())
    tables = law, transform, part.noise.double()
    generator = torch.Generator().manual_seed(0)
    o, y = (torch.randn(50, n, dtype=torch.complex128, generator=generator) for n in (len(transform), len(law.uplink)))
    y = y * law.uplink.abs().square().sum(1).add(1).sqrt()
    assert torch.allclose(Mixture.of(*tables)(o, y), Decoder.of(*tables)(torch.cat((o, y), 1)), rtol=1e-6, atol=1e-9)


def test_a_payload_decodes_alike_for_one_sample_and_many(codec: GDCSI, batch: data.Batch) -> None:
    assert batch.y is not None
    x, y = batch.x[:9], batch.y[:9]
    payloads = codec.compress(x)
    z = torch.as_tensor(codec.decompress(payloads, y))
    assert [codec.compress(x[i : i + 1])[0] for i in range(9)] == payloads
    alone = [torch.as_tensor(codec.decompress([payloads[i]], y[i : i + 1])) for i in range(9)]
    assert torch.allclose(torch.cat(alone), z, rtol=1e-3, atol=1e-4 * float(z.abs().max()))


def test_the_rates_of_one_network_are_codecs_of_their_own(codec: GDCSI, batch: data.Batch, tmp_path: Path) -> None:
    assert batch.y is not None
    x, y = batch.x[:20], batch.y[:20]
    assert isinstance(codec.net, LawBackbone)
    for rate, single in zip(RATES, codec.singles(), strict=True):
        assert single.bits == rate
        codes = single.codes(x)
        assert torch.equal(codes, codec.net.codes(codec.to_image(x), rate))
        context = codec.net.context(codes, codec.to_image(y), rate)
        z = codec.from_image(codec.decode(context, len(x)))
        assert torch.allclose(single.reconstruct(codes, y), z, rtol=1e-4, atol=1e-4 * float(z.abs().max()))


def test_tables_are_made_anew_when_weights_are_loaded_or_moved(codec: GDCSI, batch: data.Batch) -> None:
    assert batch.y is not None
    x, y = batch.x[:20], batch.y[:20]
    payloads = codec.compress(x)
    z = torch.as_tensor(codec.decompress(payloads, y))
    other = GDCSI(codec.config).eval()
    other.load_state_dict(codec.state_dict())
    assert other.compress(x) == payloads
    assert torch.allclose(
        torch.as_tensor(other.decompress(payloads, y)), z, rtol=1e-4, atol=1e-4 * float(z.abs().max())
    )
    wide = codec.double()
    assert torch.as_tensor(wide.decompress(payloads, y.to(torch.complex128))).dtype == torch.complex128
    assert torch.allclose(
        torch.as_tensor(wide.decompress(payloads, y)).to(z.dtype), z, rtol=1e-3, atol=1e-3 * float(z.abs().max())
    )


def test_a_run_leaves_models_that_hold_no_tables(
    source: data.Simulated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: data.Batch
) -> None:
    monkeypatch.setattr(module, "STEPS", 0)
    models = train(config.load("gd-csi-law", CHANGES), source, tmp_path / "run", progress=False)
    assert [model.name for model in models] == ["gd-csi-cdl-24b", "gd-csi-cdl-36b"]
    for model in models:
        loaded = zoo.load(model)
        assert check(model, loaded) < 1e-4
        assert max(value.numel() for value in loaded.state_dict().values()) < 100_000
        assert nmse(loaded.decompress(loaded.compress(batch.x), batch.y), batch.z) < 0.5


def test_gradients_reach_encoder_and_denoiser(codec: GDCSI, batch: data.Batch) -> None:
    assert batch.y is not None
    codec = codec.requires_grad_(True).train()
    x, y, z = (codec.to_image(part[:8]) for part in (batch.x, batch.y, batch.z))
    loss, _ = codec.loss(x, y, z, codec.draws(8, torch.Generator()))
    gradients = torch.autograd.grad(loss, list(codec.parameters()))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_law_needs_noise_on_y(source: data.Simulated) -> None:
    changes = {**CHANGES, "training.side_information_snr_db": "none"}
    with pytest.raises(ZooError, match="Y without noise means nothing"):
        build(config.load("gd-csi-law", changes), source)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"backbone": "unet", "prior": "law"}, "prior does not apply"),
        ({"backbone": "dense", "encoder": "profile", "prior": "law"}, "prior does not apply"),
        ({"backbone": "dense", "velocities": 100}, "velocities does not apply"),
        ({"backbone": "dense", "prior": "law", "align": True}, "without align and energy_bits"),
        ({"backbone": "dense", "prior": "law", "target": "x", "side_information": False}, "with side information"),
    ],
)
def test_options_that_do_not_apply_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GDCSIConfig.model_validate(fields)


def test_a_card_says_that_the_law_is_built_in() -> None:
    assert "data set's own law" in GDCSI.about({"backbone": "dense", "prior": "law"})


# what codebooks start from ---------------------------------------------------------------------------------------------------


def test_water_is_filled_to_the_very_bits() -> None:
    bits = waterfilled(torch.tensor([16.0, 4.0, 1.0, 1e-6]), 6)
    assert bits.sum() == pytest.approx(6, abs=1e-6)
    assert bits.tolist() == pytest.approx([4, 2, 0, 0], abs=1e-6)


def test_every_component_is_of_one_code() -> None:
    bits = torch.tensor([5.0, 4.0, 3.0, 2.0, 2.0, 0.0])
    place = spread_over(bits, (8, 8), 6)
    assert sorted(place[place >= 0].tolist()) == [0, 1, 2, 3, 4]
    shares = [bits[row[row >= 0]].sum().item() for row in place.view(2, 3)]
    assert shares == [9.0, 7.0]


def test_words_of_separate_heaps_are_their_means() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = (centres[:, None] + 0.1 * torch.randn(2, 500, 2, generator=generator)).flatten(0, 1)
    words = lloyd(samples, 2, generator)
    assert torch.allclose(words[words[:, 0].argsort()], centres, atol=0.05)
