"""GD-CSI of dense layers: frames, codebooks, the UE's search, and that payloads stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import zoo
from tests.zoo_fixtures import samples, save, untrained
from zoo.errors import ZooError
from zoo.models.base import energy
from zoo.models.gdcsi import GDCSI
from zoo.models.gdcsi.dense import DenseBackbone
from zoo.models.klt import KLT
from zoo.nn.dense import Block, Codebooks

OWN: dict[str, Any] = {"target": "x", "side_information": False}
FRAMED: dict[str, Any] = {**OWN, "align": True, "energy_bits": 3}


def dense(**fields: Any) -> GDCSI:
    codec = untrained("gd-csi", **fields)
    assert isinstance(codec, GDCSI)
    return codec


def spread_out(n: int, seed: int = 0) -> Tensor:
    """Samples whose strongest delay and energy differ."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randint(32, (n,), generator=generator)
    moved = torch.stack([x.roll(int(by), 1) for x, by in zip(samples(n, seed), shift, strict=True)])
    return moved * torch.exp(torch.randn(n, 1, 1, generator=generator))


# frames ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [64, 100, 128, 320])
def test_place_and_energy_are_part_of_the_very_bits(rate: int) -> None:
    codec = dense(**FRAMED, rate=rate)
    assert codec.widths[:2] == (5, 3)
    assert sum(codec.widths) == codec.bits == rate
    assert [len(payload) for payload in codec.compress(spread_out(3))] == [-(-rate // 8)] * 3


@pytest.mark.parametrize("place", [0, 1, 8, 31])
def test_a_sample_that_is_moved_in_delay_is_decoded_so(place: int) -> None:
    codec = dense(**FRAMED)
    still = samples(5)
    moved = still.roll(place, 2)
    first, second = (torch.as_tensor(codec.decompress(codec.compress(x))) for x in (still, moved))
    assert torch.allclose(first.roll(place, 2), second, atol=1e-6)
    assert first.any()


def test_of_equal_delays_the_first_is_taken() -> None:
    x = torch.zeros(1, 32, 32, dtype=torch.complex64)
    x[0, 3, [7, 20]] = 0.01
    assert int(dense(**FRAMED).codes(x)[0, 0]) == 7


@pytest.mark.parametrize("factor", [0.0, 1e-12, 1e12])
def test_energies_beyond_the_training_samples_take_the_nearest_code(factor: float) -> None:
    codec = dense(**FRAMED)
    x = samples(2) * factor
    codes = codec.codes(x)
    assert codes[:, 1].tolist() == [7 if factor > 1 else 0] * 2
    assert np.isfinite(codec.decompress(codec.compress(x))).all()


def test_a_frame_says_the_energy_as_finely_as_its_bits_allow() -> None:
    codec = dense(**FRAMED)
    codec.prepare(spread_out(500, seed=1))
    net = codec.net
    assert isinstance(net, DenseBackbone)
    image = codec.to_image(spread_out(200))
    _, level = net.frame.read(net.frame.codes(image))
    low, high = net.frame.levels
    assert level is not None
    actual = (energy(image) / 1024).sqrt().log2()
    inside = (actual > low) & (actual < high)
    assert inside.float().mean() > 0.8
    assert (level.log2() - actual)[inside].abs().max() <= (high - low) / 16 + 1e-5


@pytest.mark.parametrize("family", ["csinet", "crnet"])
def test_the_baselines_may_be_aligned_too(family: str) -> None:
    codec = untrained(family, rate=131, align=True, side_information=False)
    assert codec.widths == (5,) + (6,) * 21
    x = samples(4)
    first, second = (torch.as_tensor(codec.decompress(codec.compress(part))) for part in (x, x.roll(11, 2)))
    assert torch.allclose(first.roll(11, 2), second, atol=1e-7)
    loss, _ = codec.requires_grad_(True).loss(codec.to_image(x), None, codec.to_image(x), {})
    moved, _ = codec.loss(codec.to_image(x.roll(11, 2)), None, codec.to_image(x.roll(11, 2)), {})
    assert loss.item() == pytest.approx(moved.item(), rel=1e-5)
    with pytest.raises(
        ValueError, match="rate 132 is no multiple of element_bits 6, beside the 5 bits of the place; nearest: 131, 137"
    ):
        untrained(family, rate=132, align=True)


# codes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, FRAMED, {"taps": 16}, {"steps": 4, "decoding_steps": 2}])
def test_a_payload_decodes_alike_for_one_sample_and_many_and_any_number_of_threads(fields: dict[str, Any]) -> None:
    codec = dense(**fields)
    x = spread_out(9)
    y = samples(9, 1) if codec.takes_y else None
    payloads = codec.compress(x)
    z = torch.as_tensor(codec.decompress(payloads, y))
    assert [codec.compress(x[i : i + 1])[0] for i in range(9)] == payloads
    alone = [torch.as_tensor(codec.decompress([payloads[i]], None if y is None else y[i : i + 1])) for i in range(9)]
    assert torch.allclose(torch.cat(alone), z, rtol=1e-4, atol=1e-7)
    torch.set_num_threads(2)
    try:
        assert codec.compress(x) == payloads
        assert torch.allclose(torch.as_tensor(codec.decompress(payloads, y)), z, rtol=1e-4, atol=1e-7)
    finally:
        torch.set_num_threads(1)


def test_delays_behind_the_taps_are_left_out() -> None:
    codec = dense(taps=16)
    z = torch.as_tensor(codec.decompress(codec.compress(samples(3)), samples(3, 1)))
    assert z[:, :, :16].any()
    assert not z[:, :, 16:].any()


def test_words_are_the_nearest_of_their_own_codebook() -> None:
    torch.manual_seed(0)
    books = Codebooks((4, 4, 2), 3)
    latents = torch.randn(20, 3, 3)
    codes = books.codes(latents)
    assert codes[:, 2].max() < 4  # the last has four words only
    for number, count in enumerate((16, 16, 4)):
        assert (codes[:, number] == torch.cdist(latents[:, number], books.words[number, :count]).argmin(1)).all()
    assert torch.equal(books(codes)[:, 1], books.words[1, codes[:, 1]])


def test_words_that_nobody_uses_come_to_where_latents_are() -> None:
    torch.manual_seed(0)
    books = Codebooks((3, 2), 4).train()
    books.words.data[:, 1:] += 100  # out of reach of all latents
    for _ in range(400):
        books.quantise(torch.randn(64, 2, 4))
    assert len(set(books.codes(torch.randn(500, 2, 4)).flatten().tolist())) == 1
    books.revive(torch.Generator().manual_seed(0))
    used = books.codes(torch.randn(500, 2, 4))
    assert [len(set(used[:, number].tolist())) for number in range(2)] == [8, 4]
    assert (books.usage[~books.absent] >= 0.05).all()


def test_a_block_starts_as_the_identity() -> None:
    x = torch.randn(3, 8)
    assert torch.equal(Block(8, 16)(x), x)


# the UE's search -------------------------------------------------------------------------------------------------------------


def test_effort_changes_payloads_but_never_their_length_and_never_raises_the_error() -> None:
    codec = dense(**FRAMED, rate=64)
    x = spread_out(12)
    errors = []
    found = [codec.compress(x, effort=effort) for effort in range(3)]
    for payloads in found:
        assert {len(payload) for payload in payloads} == {8}
        errors.append((torch.as_tensor(codec.decompress(payloads)) - x).abs().square().sum((1, 2)))
    assert found[0] != found[1]
    assert (errors[1] <= errors[0] * (1 + 1e-5)).all()
    assert (errors[2] <= errors[1] * (1 + 1e-5)).all()
    assert errors[1].sum() < errors[0].sum()


def test_effort_is_the_configs_unless_it_is_given() -> None:
    lazy, eager = dense(**FRAMED), dense(**FRAMED, effort=1)
    x = spread_out(4)
    assert lazy.compress(x) == lazy.compress(x, effort=0) == eager.compress(x, effort=0)
    assert eager.compress(x) == lazy.compress(x, effort=1)
    assert torch.equal(eager.replay(x, None)["payload"], lazy.replay(x, None)["payload"])  # golden vectors: effort 0


@pytest.mark.parametrize(
    ("fields", "effort", "levels"), [({}, 1, "0"), (FRAMED, 3, "0, 1, 2"), (FRAMED, -1, "0, 1, 2")]
)
def test_an_effort_that_a_codec_does_not_have_is_refused(fields: dict[str, Any], effort: int, levels: str) -> None:
    with pytest.raises(ZooError, match=f"effort {effort} is not one of this model's: {levels}"):
        dense(**fields).compress(samples(2), effort=effort)


def test_a_narrow_last_code_is_searched_among_the_words_that_it_has() -> None:
    codec = dense(**OWN, rate=18)  # codes of 8, 8 and 2 bits
    assert isinstance(codec.net, DenseBackbone)
    codec.net.denoiser.leave.weight.normal_(std=0.5)
    assert {len(payload) for payload in codec.compress(spread_out(60), effort=2)} == {3}


def test_a_model_that_was_loaded_in_inference_mode_searches(tmp_path: Path) -> None:
    path = save(tmp_path / "gd-csi-own-64b", dense(**FRAMED, rate=64, effort=1))
    with torch.inference_mode():
        payloads = zoo.load(path).compress(spread_out(3))
    assert payloads == zoo.load(path).compress(spread_out(3))


def test_a_card_says_whose_networks_they_are() -> None:
    fields = [{}, {"backbone": "dense"}, {"backbone": "dense", "encoder": "profile"}]
    paper, books, behind = (GDCSI.about(own) for own in fields)
    assert "The paper's own networks" in paper
    assert "not its networks" in books
    assert "trained codebooks" in books
    assert "classical profile-code" in behind
    assert KLT.about({}).startswith("KLT: the classical reference.")


# training --------------------------------------------------------------------------------------------------------------------


def test_each_rate_counts_alike_however_small_its_error() -> None:
    from zoo.models.gdcsi.codec import _mean_of_rates

    error = torch.tensor([0.5, 0.7, 0.01, 0.03], requires_grad=True)
    loss = _mean_of_rates(error, torch.tensor([0, 0, 1, 1]), 2)
    assert loss.item() == pytest.approx((0.6 + 0.02) / 2)
    (gradient,) = torch.autograd.grad(loss, error)
    relative = gradient.view(2, 2).sum(1) * torch.tensor([0.6, 0.02])
    assert relative[0] == pytest.approx(relative[1].item())


def test_samples_without_energy_do_not_spoil_training() -> None:
    codec = dense(**FRAMED, objective="sampler", rates=(64, 128)).requires_grad_(True).train()
    x = samples(16)
    x[3] = 0
    image = codec.to_image(x)
    loss, _ = codec.loss(image, None, image, codec.draws(16, torch.Generator()))
    gradients = torch.autograd.grad(loss, list(codec.parameters()))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_training_turns_samples_and_the_loss_does_not_mind() -> None:
    codec = dense(**OWN, objective="sampler", steps=1, decoding_steps=1)
    from zoo.models.gdcsi.backbone import turned

    x = codec.to_image(samples(4))
    phase = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert torch.allclose(energy(turned(x, phase)), energy(x))
    value = codec.from_image(turned(x, phase))
    assert torch.allclose(value, samples(4) * torch.exp(1j * phase)[:, None, None], atol=1e-7)
