"""Physics: the closed form against Sionna 2.2, path by path and in the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
from sionna.phy.channel.tr38901 import CDL, PanelArray

from benchmarks.side_information import linear_error_db, principal
from datagen.recipe import CDLRecipe
from datagen.scenarios import cdl, make_engine
from tests.conftest import small_recipe

UPLINKS = ("comb", "independent-phases", "same-coefficients")


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(torch.linalg.norm(found - expected) / torch.linalg.norm(expected))


def sionna_cdl(
    recipe: CDLRecipe, draws: cdl.Draws, band: int, carrier_hz: float, direction: str, instants: int
) -> tuple[CDL, torch.Tensor, torch.Tensor]:
    """Sionna's public CDL model with only its random numbers replaced: (model, path coefficients, delays [s])."""
    common = {
        "polarization": "single",
        "polarization_type": "V",
        "carrier_frequency": carrier_hz,
        "precision": "double",
        "device": "cpu",
    }
    model = CDL(
        recipe.model, recipe.delay_spread_ns * 1e-9, carrier_hz,
        ut_array=PanelArray(1, 1, antenna_pattern="omni", **common),
        bs_array=PanelArray(1, recipe.antennas, antenna_pattern="38.901", **common),
        direction=direction, ut_velocity=torch.from_numpy(draws.velocity).double(), precision="double", device="cpu",
    )  # fmt: skip
    coupling = torch.from_numpy(draws.coupling).long()[:, :, None, None]
    bs_first = direction == "downlink"

    def couple(aoa: torch.Tensor, aod: torch.Tensor, zoa: torch.Tensor, zod: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ue_azimuth, bs_azimuth, ue_zenith, bs_zenith = (aoa, aod, zoa, zod) if bs_first else (aod, aoa, zod, zoa)
        ue_azimuth, ue_zenith = ue_azimuth.gather(-1, coupling[:, cdl.AOA]), ue_zenith.gather(-1, coupling[:, cdl.ZOA])
        bs_zenith = bs_zenith.gather(-1, coupling[:, cdl.ZOD])
        return (
            (ue_azimuth, bs_azimuth, ue_zenith, bs_zenith)
            if bs_first
            else (bs_azimuth, ue_azimuth, bs_zenith, ue_zenith)
        )

    phases = torch.from_numpy(draws.phases[:, band]).double()[:, None, None, ..., None].expand(-1, 1, 1, -1, -1, 4)
    model._random_coupling = couple
    model._cir_gen._step_10 = lambda shape: phases
    h, tau = model(len(draws.velocity), instants, 14e3)
    return model, h if bs_first else h.transpose(2, 4), tau


@pytest.mark.parametrize("model", "ABCDE")
def test_tables_are_sionnas(model: str) -> None:
    recipe = CDLRecipe(model=model, delay_spread_ns=1e9)  # type: ignore[arg-type]
    theirs, _, _ = sionna_cdl(recipe, cdl.draw(recipe, "train", [0]), 0, 2e9, "downlink", 1)
    ours = cdl.profile(model)
    for name in ("delays", "powers", "aod", "aoa", "zod", "zoa"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, f"_{name}"), rtol=1e-12, err_msg=name)
    assert ours.k_factor == pytest.approx(float(theirs._k_factor), rel=1e-12)
    assert (ours.los is not None) == theirs._has_los == (model in "DE")


@pytest.mark.parametrize("uplink", UPLINKS)
@pytest.mark.parametrize("model", "ABCDE")
def test_closed_form_equals_sionnas_cdl_class(model: str, uplink: str) -> None:
    """All instants, full band, 2-D IFFT, crop, from Sionna's public model; the uplink through its uplink direction."""
    recipe = small_recipe(model=model, uplink=uplink)
    draws = cdl.draw(recipe, "train", range(3))
    mean = (recipe.downlink_carrier_ghz + recipe.uplink_carrier_ghz) / 2
    carriers = {"comb": (mean, mean)}.get(uplink, (recipe.downlink_carrier_ghz, recipe.uplink_carrier_ghz))
    offset = (recipe.downlink_carrier_ghz - mean) * 1e9 if uplink == "comb" else 0.0
    f = subcarrier_frequencies(667, 15e3, precision="double", device="cpu")

    def crop(band: int, carrier: float, shift: float, direction: str, instant: int) -> torch.Tensor:
        _, h, tau = sionna_cdl(recipe, draws, band, carrier * 1e9, direction, 71)
        response = cir_to_ofdm_channel(f + shift, h[..., instant : instant + 1], tau)[:, 0, 0, 0, :, 0]
        taps: torch.Tensor = torch.fft.ifft2(response)[..., :32]
        return taps

    x, y, z = make_engine(recipe)(draws).values()
    assert error(x, crop(0, carriers[0], offset, "downlink", 0)) < 1e-5
    assert error(z, crop(0, carriers[0], offset, "downlink", 70)) < 1e-5
    assert error(y, crop(int(uplink == "independent-phases"), carriers[1], -offset, "uplink", 70)) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"antennas": 16, "subcarriers": 601, "crop_taps": 29},
        {"antennas": 1, "subcarriers": 64, "crop_taps": 64, "antenna_pattern": "omni"},
        {"antennas": 33, "subcarriers": 128, "spacing_khz": 120.0, "delay_spread_ns": 30.0, "speed_mps": [0.0, 140.0]},
        {"downlink_carrier_ghz": 1.8, "uplink_carrier_ghz": 3.5, "slots": 2, "velocity": "horizontal"},
        {"slots": 1},
        {"slots": 70_001, "downlink_carrier_ghz": 28.0, "uplink_carrier_ghz": 27.0, "speed_mps": 30.0},
    ],
)
@pytest.mark.parametrize(
    ("model", "uplink"),
    [("A", "comb"), ("C", "comb"), ("C", "independent-phases"), ("D", "same-coefficients"), ("E", "comb")],
)
def test_engines_agree(model: str, uplink: str, changes: dict[str, object]) -> None:
    recipe = small_recipe(model=model, uplink=uplink, **changes)
    draws = cdl.draw(recipe, "val", range(8))
    found, expected = make_engine(recipe)(draws), make_engine(recipe, "sionna")(draws)
    for name in recipe.arrays:
        assert error(found[name], expected[name]) < 1e-5


def triples(recipe: CDLRecipe, n: int) -> list[np.ndarray]:
    """X, Y, Z of the first n train samples, each [n, angles * delays]."""
    engine = make_engine(recipe)
    blocks = [engine(engine.draw("train", range(start, start + 500))) for start in range(0, n, 500)]
    return [
        torch.cat(parts).reshape(n, -1).numpy() for parts in zip(*(block.values() for block in blocks), strict=True)
    ]


def test_linear_prediction_limits_of_the_default_recipe() -> None:
    """SCIENCE.md section 2: the last column of the table of limits, measured there on 4 300 + 1 800 samples of Sionna's own."""
    x, y, z = triples(CDLRecipe(), 10_000)
    px, py = principal(x, 48), principal(y, 48)
    assert linear_error_db([px], z, 8000) == pytest.approx(-5.87, abs=0.3)
    assert linear_error_db([py], z, 8000) == pytest.approx(-2.82, abs=0.3)
    assert linear_error_db([px, py], z, 8000) == pytest.approx(-7.77, abs=0.3)


def test_uplink_relations_carry_what_they_should() -> None:
    _, y, z = triples(CDLRecipe(uplink="independent-phases"), 5000)
    assert linear_error_db([principal(y, 48)], z, 4000) > -0.1  # fresh phases: nothing about Z
    _, y, z = triples(CDLRecipe(uplink="same-coefficients"), 5000)
    assert linear_error_db([principal(y, 48)], z, 4000) == pytest.approx(-25, abs=1)  # only the Doppler shift differs


def test_energy_kept_by_the_crop() -> None:
    full, _, _ = triples(CDLRecipe(crop_taps=667), 500)
    power = np.square(np.abs(full.reshape(500, 32, 667))).sum((0, 1))
    assert power[:32].sum() / power.sum() == pytest.approx(0.97, abs=0.01)


def test_standing_still_leaves_the_downlink_as_it_is() -> None:
    x, y, z = triples(CDLRecipe(speed_mps=(0.0, 0.0)), 500)
    np.testing.assert_array_equal(x, z)
    assert not np.array_equal(x, y)


def test_device_draws_follow_the_law_of_the_indexed_draws() -> None:
    recipe = small_recipe(model="D", speed_mps=[1.0, 9.0])
    engine = make_engine(recipe)
    n = 4000
    by_index = engine(engine.draw("train", range(n)))
    streamed = engine(engine.draw_on_device(n, torch.Generator().manual_seed(1)))
    for a, b in zip(by_index.values(), streamed.values(), strict=True):
        strong = torch.topk(a.abs().square().mean(0).flatten(), 100).indices
        power = [array.abs().square().mean(0).flatten()[strong] for array in (a, b)]
        np.testing.assert_allclose(power[0], power[1], rtol=0.25)
        assert float(power[0].sum()) == pytest.approx(float(power[1].sum()), rel=0.03)
    inner = [
        (batch["X"].conj() * batch["Z"]).sum((1, 2)).abs().mean() / batch["X"].abs().square().sum((1, 2)).mean()
        for batch in (by_index, streamed)
    ]
    assert float(inner[0]) == pytest.approx(float(inner[1]), rel=0.03)
