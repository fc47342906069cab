"""The reference engine: Sionna's own ``InH``, with only its random numbers replaced by given draws.

A sample's drop goes through Sionna twice: with all its users for the large-scale parameters, whose fields are correlated between
them, then with the one user that the sample is for rays, coefficients and the OFDM response.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
from sionna.phy.channel.tr38901 import InH, PanelArray
from sionna.phy.channel.tr38901 import lsp as lsp_module
from sionna.phy.channel.tr38901.lsp import LSP
from sionna.phy.channel.tr38901.rays import Rays

from datagen.angular_delay import to_angular_delay
from datagen.recipe import InHRecipe
from datagen.scenarios import Batch
from datagen.scenarios.inh import AOA, AOD, ASA, ASD, CLUSTERS, DS, RAYS, SF, ZOA, ZOD, ZSA, ZSD, Draws, InHEngine, K

BATCH = 16  # samples at a time: Sionna holds every ray of every antenna in double precision
SIONNA_ORDER = [DS, ASD, ASA, SF, K, ZSA, ZSD]  # its large-scale parameters, by ours


class Sionna(InHEngine):
    """Sionna 2.2 fed with given draws, in double precision."""

    def __init__(self, recipe: InHRecipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self._sionna_device = "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"
        self.frequencies = subcarrier_frequencies(
            recipe.subcarriers, recipe.spacing_khz * 1e3, precision="double", device=self._sionna_device
        )

    def channel(self) -> InH:
        """Sionna's model of the recipe, without a topology and with random numbers of its own."""
        recipe = self.recipe
        common: dict[str, Any] = {"precision": "double", "device": self._sionna_device}
        panel = {"polarization": "single", "polarization_type": "V", "carrier_frequency": recipe.carrier_ghz * 1e9}
        model = InH(
            recipe.carrier_ghz * 1e9,
            ut_array=PanelArray(1, 1, antenna_pattern="omni", **panel, **common),
            bs_array=PanelArray(1, recipe.antennas, antenna_pattern=recipe.antenna_pattern, **panel, **common),
            direction="downlink", indoor_scenario=recipe.office,
            enable_pathloss=recipe.path_loss, enable_shadow_fading=recipe.shadow_fading, **common,
        )  # fmt: skip
        model.return_rays = True
        return model

    def set_topology(self, model: InH, places: torch.Tensor, los: torch.Tensor | bool | str) -> None:
        """Put users at ``places`` [n, U, 2] in m from the room's centre, nobody tilted or moving."""
        n, users, _ = places.shape
        height = torch.full_like(places[..., :1], self.recipe.ue_height_m)
        base = places.new_tensor([self.recipe.bs_x_m, self.recipe.bs_y_m, self.recipe.bs_height_m])
        model.set_topology(
            torch.cat([places, height], -1), base.repeat(n, 1, 1),
            ut_orientations=places.new_zeros(n, users, 3), bs_orientations=places.new_zeros(n, 1, 3),
            ut_velocities=places.new_zeros(n, users, 3), los=los,
        )  # fmt: skip

    def __call__(self, draws: Draws) -> Batch:
        """Simulate the samples of some draws.

        :param draws: random numbers of n samples
        :returns: the recipe's X and H, each complex64 [n, ...] on the engine's device
        """
        draws = draws.to(self.device)
        parts = [self._samples(draws[start : start + BATCH]) for start in range(0, len(draws), BATCH)]
        return {name: torch.cat([part[name] for part in parts]) for name in self.recipe.arrays}

    @torch.no_grad()
    def _samples(self, draws: Draws) -> Batch:
        h, delays, _, _ = self.paths(draws)
        # antennas as receivers, which reciprocity allows: otherwise the phases of every path are made once for each of them
        response = cir_to_ofdm_channel(self.frequencies, h.permute(0, 3, 4, 1, 2, 5, 6), delays.transpose(1, 2))
        response = response[:, 0, :, 0, 0, 0]
        if self.recipe.uplink:
            return {"H": self.unit_power(response).to(torch.complex64)}
        return {
            "X": to_angular_delay(response, self.recipe.crop_taps).to(torch.complex64),
            "H": response[..., : self.band].to(torch.complex64),
        }

    def paths(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, Rays, InH]:
        """What Sionna makes of some draws: coefficients [n, 1, 1, 1, antenna, path, 1], delays [n, 1, 1, path] [s], its rays and itself."""
        model = self.channel()
        scenario = model._scenario
        forced = {"los": True, "nlos": False}
        self.set_topology(model, draws.places, forced.get(self.recipe.line_of_sight, True))
        if self.recipe.line_of_sight == "drawn":
            self.set_topology(model, draws.places, draws.sight[:, None] < scenario.los_probability)
        with patch.object(lsp_module, "normal", lambda *_, **__: draws.large[:, None, :, SIONNA_ORDER]):
            everyone = model.sample_lsp()
        at = draws.user[:, None, None]
        names = ("ds", "asd", "asa", "sf", "k_factor", "zsa", "zsd")
        own = {name: getattr(everyone, name).gather(2, at) for name in names}
        self.set_topology_of_one(model, draws, scenario.los.gather(2, at))
        model._lsp = LSP(**own, pathloss=scenario.basic_pathloss)
        replace_randomness(model, draws)
        h, delays, rays = model(1, 1.0)
        return h, delays, rays, model

    def set_topology_of_one(self, model: InH, draws: Draws, los: torch.Tensor) -> None:
        """Leave only the user of each sample."""
        places = draws.places.take_along_dim(draws.user[:, None, None], 1)
        model.reset_topology()
        self.set_topology(model, places, los)


def replace_randomness(model: InH, draws: Draws) -> None:
    """Make Sionna's ray generator take its numbers from the draws, in the order in which it asks for them."""
    n = len(draws)
    uniform = (draws.delay - 1e-6) / (1 - 1e-6)  # Sionna squeezes its uniform numbers into 1e-6 ... 1
    jitter = [draws.jitter[:, row] for row in (AOA, AOD, ZOA, ZOD)]
    unused = draws.delay.new_zeros(n, CLUSTERS, RAYS)
    straight = torch.arange(RAYS, dtype=torch.float64, device=unused.device).expand_as(unused)
    # powers, angles, cross-polarisation; then the numbers whose order couples the rays of aoa, aod, zoa and zod
    normals = [draws.shadowing, *jitter, unused, straight, straight, straight, draws.coupling.argsort(-1).double()]
    generator = model._ray_sampler
    generator._spatial_uniform = _tape([uniform])
    generator._spatial_normal = _tape(normals)
    generator._spatial_binary_sign = _tape([draws.signs[:, row] for row in (AOA, AOD, ZOA, ZOD)])
    made = generator._cluster_delays

    # Sionna sorts clusters by delay, and every number of theirs but the phases, which it draws later
    def note_order(*arguments: Any) -> Any:
        delays, unscaled, order = made(*arguments)
        phases = draws.phases.double()[:, None, None].gather(3, order[..., None].expand(-1, -1, -1, -1, RAYS))
        model._cir_sampler._step_10 = lambda _: phases[..., None].expand(*phases.shape, 4)
        return delays, unscaled, order

    generator._cluster_delays = note_order


def _tape(numbers: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A source of random numbers that gives these, each [n, ...] as [n, 1 BS, 1 UE, ...], whatever shape is asked for."""
    left = iter(numbers)
    return lambda *_, **__: next(left)[:, None, None]
