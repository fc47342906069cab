"""RD-JSCC of dense layers: alignment in the symbols, first look and refinement, the encoder's search, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from tests.zoo_fixtures import ready, samples
from zoo import config
from zoo.data import Kept
from zoo.errors import ZooError
from zoo.models.base import energy, relative_error
from zoo.models.densejscc import PLACE_WEIGHT, DenseJSCC, DenseJSCCConfig
from zoo.nn.frame import HOME, level_of, rolled, strongest
from zoo.train import build
from zoo.uplink import Rayleigh, transmit

SMALL: dict[str, Any] = {"symbols": (2, 4, 8), "width": 16, "hidden": 16, "encoder_blocks": 1, "denoiser_blocks": 1}


def untrained(**fields: Any) -> DenseJSCC:
    torch.manual_seed(1)
    model = DenseJSCC(DenseJSCCConfig.model_validate({**SMALL, **fields}))
    return ready(model)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs(n: int, k: int = 8) -> Tensor:
    return torch.randn(n, k, 2, generator=generator())


def test_the_encoder_sees_a_sample_wherever_its_strongest_delay_is() -> None:
    """Two samples that differ by a shift differ for the encoder by the place alone."""
    model = untrained()
    image = model.to_image(samples(6))
    at_home = rolled(image, 8 - strongest(image))
    snr = torch.full((6,), 5.0)
    sent = model.latent(at_home, snr)
    assert model.sender.place is not None
    told = model.sender.place.weight
    told.copy_(told[:1].expand_as(told).clone())  # a network that does not tell the place
    for place in (0, 7, 31):  # edges too
        assert torch.allclose(
            model.latent(rolled(at_home, place - strongest(at_home)), snr), model.latent(at_home, snr)
        )
    assert not torch.allclose(sent, model.latent(at_home, snr))  # it did before
    assert not torch.allclose(untrained(align=False).latent(at_home, snr), untrained(align=False).latent(image, snr))


def test_the_answer_is_moved_to_the_place_that_the_head_decides() -> None:
    model = untrained()
    for steps in (0, 1, 2):
        answer = model.answers(pairs(5), torch.zeros(5), steps)[-1]
        assert answer.place is not None
        moved = model.estimate(pairs(5), torch.zeros(5), steps)
        assert torch.equal(rolled(moved, 32 // HOME - answer.place.argmax(1)), model.aligned_image(answer))
    with torch.no_grad():
        assert model.head.place is not None
        model.head.place.bias[31] = 1e6
        model.head.cells.weight.zero_()
        model.head.cells.bias.zero_()
        model.head.cells.bias.view(2, 32, 32)[:, :, 8] = 1.0
    assert (strongest(model.estimate(pairs(5), torch.zeros(5), 0)) == 31).all()


def test_steps_are_prefixes_of_one_another() -> None:
    """The first step starts from the same noise in the same place, however many follow."""
    model = untrained()
    first, *_, last = model.answers(pairs(4), torch.zeros(4), 2)
    [alone] = model.answers(pairs(4), torch.zeros(4), 0)
    once = model.answers(pairs(4), torch.zeros(4), 1)
    assert torch.equal(first.cells, alone.cells)
    assert torch.equal(once[1].cells, model.answers(pairs(4), torch.zeros(4), 2)[1].cells)
    assert not torch.equal(once[1].cells, last.cells)


def test_symbols_of_a_small_k_are_the_first_of_a_large_one() -> None:
    model, x = untrained(), samples(4)
    longest = model.encode(x, 5.0)
    for k in (2, 4):
        short = model.encode(x, 5.0, k)
        scale = (longest[:, :k] / short).real
        assert torch.allclose(longest[:, :k], short * scale.mean(1, keepdim=True), atol=1e-5)


@pytest.mark.parametrize(("name", "fewest", "most"), [("adjscc", 0, 0), ("unet-jscc", 0, 1), ("gd-jscc", 0, 100)])
def test_siblings_are_of_the_same_size(name: str, fewest: int, most: int) -> None:
    def size(model: DenseJSCC) -> int:
        return sum(weight.numel() for weight in model.parameters())

    def made(recipe: str) -> DenseJSCC:
        with torch.device("meta"):
            return DenseJSCC(DenseJSCCConfig.model_validate(config.load(recipe).codec))

    ours, sibling = made("rd-jscc"), made(f"{name}-dense")
    assert size(sibling) == pytest.approx(size(ours), rel=0.12)
    assert sibling.steps == (fewest, most)
    assert len(sibling.config.symbols) == 3


def test_who_is_not_told_the_snr_does_not_go_by_it() -> None:
    x = samples(3)
    for told in (True, False):
        model = untrained(told_snr=told)
        sent = model.encode(x, 5.0)
        assert torch.equal(sent, model.encode(x, -10.0)) is not told
        assert torch.equal(model.decode(sent, 5.0), model.decode(sent, -10.0)) is not told


def test_a_sample_without_energy_is_sent_and_answered() -> None:
    model, x = untrained(), samples(4)
    x[1] = 0
    for effort in (0, 1):
        sent = model.encode(x, 5.0, effort=effort)
        assert torch.isfinite(torch.view_as_real(sent)).all()
        assert torch.isfinite(torch.view_as_real(model.decode(sent, 5.0))).all()
    model.train().requires_grad_(True)
    image = model.to_image(x)
    loss, _ = model.loss(image, None, image, model.draws(4, generator()))
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert torch.isfinite(gradient).all()


def test_levels_of_many_decades_come_back() -> None:
    """The network sees samples of level one, and a head's level is put back on."""
    model = untrained()
    image = model.to_image(samples(3))
    assert model.usual == pytest.approx(float(level_of(model.to_image(samples(100))).log2().mean()))
    answer = model.answers(pairs(3), torch.zeros(3), 0)[0]
    louder, quiet = (
        answer._replace(level=torch.full((3,), level)) for level in (0.3, -0.7)
    )  # octaves, small beside the span
    assert torch.allclose(model.aligned_image(louder), 2 * model.aligned_image(quiet), rtol=0.01)
    snr = torch.zeros(3)
    model.get_parameter("sender.level.2.weight").zero_()  # a network that does not tell the level
    assert torch.allclose(model.latent(image * 1e-3, snr), model.latent(image, snr), atol=1e-4)


# loss ------------------------------------------------------------------------------------------------------------------------


def test_the_loss_is_in_expectation_over_the_place() -> None:
    model = untrained()
    image = model.to_image(samples(4))
    answer = model.answers(pairs(4), torch.zeros(4), 0)[0]
    assert answer.place is not None
    home = rolled(image, 8 - strongest(image))
    told = model.aligned_image(answer)
    right, wrong = relative_error(told, home), 1 + energy(told) / energy(image)
    for score, expected in ((1e6, right), (-1e6, wrong)):
        scores = torch.zeros(4, 32).scatter(1, strongest(image)[:, None], score)
        assert torch.allclose(model._expected_error(answer._replace(place=scores), image), expected, rtol=1e-5)
    even = model._expected_error(answer._replace(place=torch.zeros(4, 32)), image)
    assert torch.allclose(even, right / 32 + wrong * 31 / 32, rtol=1e-5)


def test_who_knows_no_place_is_not_taught_to_answer_zero() -> None:
    model = untrained()
    image = model.to_image(samples(4))
    answer = model.answers(pairs(4), torch.zeros(4), 0)[0]
    cells = answer.cells.clone().requires_grad_()
    unsure = answer._replace(cells=cells, place=torch.zeros(4, 32))
    (found,) = torch.autograd.grad(model._expected_error(unsure, image).sum(), cells)
    told = model.aligned_image(answer._replace(cells=cells))
    alone = relative_error(told, rolled(image, 8 - strongest(image))).sum() / 32
    (expected,) = torch.autograd.grad(alone, cells)
    assert torch.allclose(found, expected, atol=1e-6)
    assert PLACE_WEIGHT > 0


def test_training_finds_places_and_is_worth_more_than_nothing() -> None:
    """A few dozen steps on one kind of samples whose strongest delay is anywhere."""
    torch.manual_seed(0)
    x = 0.1 * torch.randn(64, 32, 32, dtype=torch.complex64)
    rows = torch.arange(64)
    x[rows, :, torch.randint(32, (64,))] += torch.randn(64, 1, dtype=torch.complex64)
    model = DenseJSCC(DenseJSCCConfig(symbols=(8,), width=64, hidden=64, encoder_blocks=1, denoiser_blocks=1))
    model.prepare(x)
    image, adam = model.to_image(x), torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(150):
        loss, logs = model.loss(image, None, image, model.draws(64, generator(step)))
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    model.eval()
    sent = model.encode(x, 10.0)
    received = transmit(sent, 10.0, channel=Rayleigh(), generator=generator()).symbols
    estimate = torch.as_tensor(model.decode(received, 10.0))
    assert (strongest(model.to_image(estimate)) == strongest(image)).float().mean() > 0.9
    assert relative_error(torch.view_as_real(estimate), torch.view_as_real(x)).mean() < 0.6
    assert set(logs) == {"error_0", "error_1", "error_2"}


# the encoder's search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", [1, 2])
def test_effort_lowers_the_expected_error_and_nothing_else(effort: int) -> None:
    model, x = untrained(align=False), samples(16)
    plain, searched = (model.encode(x, 5.0, effort=level) for level in (0, effort))
    assert searched.shape == plain.shape
    assert torch.allclose(searched.abs().square().mean(1), torch.ones(16))
    assert torch.equal(searched, model.encode(x, 5.0, effort=effort))  # links are drawn by a seed

    def error(sent: Tensor) -> Tensor:
        image = model.to_image(x)
        found = [
            relative_error(
                model.to_image(
                    torch.as_tensor(
                        model.decode(transmit(sent, 5.0, channel=model.channel, generator=generator(n)).symbols, 5.0)
                    )
                ),
                image,
            )
            for n in range(40)
        ]
        return torch.stack(found).mean(0)

    before, after = error(plain), error(searched)
    assert after.mean() < before.mean()
    assert len(model.encode(x, 5.0, 4, bits=3, effort=effort)[0]) == 3


def test_effort_is_the_models_own_where_none_is_given() -> None:
    model, x = untrained(effort=1), samples(3)
    assert torch.equal(model.encode(x, 5.0), model.encode(x, 5.0, effort=1))
    assert model.efforts == 3
    with pytest.raises(ZooError, match="effort 3 is not one of this model's: 0, 1, 2"):
        model.encode(x, 5.0, effort=3)


# what it refuses, and how it is made -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"start": 21}, "start 21 exceeds the 20 steps"),
        ({"taps": 40}, "taps 40 exceed the 32 delays"),
        ({"refinement": "direct"}, "decoding_steps = 1"),
        ({"refinement": None}, "decoding_steps = 0"),
        ({"effort": 3}, "less than 3"),
    ],
)
def test_config_refuses(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        DenseJSCCConfig.model_validate(fields)


def test_steps_out_of_range() -> None:
    with pytest.raises(ZooError, match="decodes in 0 to 1 steps"):
        untrained(refinement="direct", decoding_steps=1).decode(torch.ones(1, 8, dtype=torch.complex64), 5.0, 2)


def test_taps_leave_the_last_delays_empty() -> None:
    model = untrained(align=False, taps=16)
    z = torch.as_tensor(model.decode(torch.ones(2, 8, dtype=torch.complex64), 5.0))
    assert not z[..., 16:].any()
    assert z[..., :16].any()


@pytest.mark.parametrize("name", ["rd-jscc", "rdjscc", "RD_JSCC"])
def test_the_recipe_is_found_and_built(name: str) -> None:
    recipe = config.load(name, {f"codec.{key}": value for key, value in SMALL.items()})
    model = build(recipe, Kept(None, "cpu", 512, seed=0))
    assert isinstance(model, DenseJSCC)
    assert model.config.refinement == "residual"
    assert "Not the paper's own networks" in model.about(recipe.codec)
