"""The reference engine: the same draws through Sionna's own coefficient generator, OFDM response and a plain 2-D IFFT."""

from __future__ import annotations

import numpy as np
import torch
from sionna.phy.channel import cir_to_ofdm_channel, subcarrier_frequencies
from sionna.phy.channel.tr38901 import PanelArray
from sionna.phy.channel.tr38901.channel_coefficients import ChannelCoefficientsGenerator, Topology
from sionna.phy.channel.tr38901.rays import Rays

from datagen.angular_delay import to_angular_delay
from datagen.recipe import CDLRecipe
from datagen.scenarios import Batch
from datagen.scenarios.cdl import AOA, ZOA, ZOD, CDLEngine, Draws

BATCH = 16  # samples at a time: Sionna holds every ray of every antenna in double precision


class Sionna(CDLEngine):
    """Sionna 2.2 fed with given draws, in double precision (a float32 phase 2 pi f tau at 100 MHz is good to 1e-4 only)."""

    def __init__(self, recipe: CDLRecipe, device: torch.device) -> None:
        super().__init__(recipe, device)
        self._sionna_device = "cpu" if device.type == "cpu" else f"cuda:{device.index or 0}"
        self.generators = {
            carrier: self._generator(carrier) for carrier in {look.carrier_hz for look in self.looks.values()}
        }
        self.frequencies = subcarrier_frequencies(
            recipe.subcarriers, recipe.spacing_khz * 1e3, precision="double", device=self._sionna_device
        )

    def _generator(self, carrier_hz: float) -> ChannelCoefficientsGenerator:
        common = {"polarization": "single", "polarization_type": "V", "carrier_frequency": carrier_hz}
        common |= {"precision": "double", "device": self._sionna_device}
        base_station = PanelArray(1, self.recipe.antennas, antenna_pattern=self.recipe.antenna_pattern, **common)
        terminal = PanelArray(1, 1, antenna_pattern="omni", **common)
        return ChannelCoefficientsGenerator(
            carrier_hz, base_station, terminal, subclustering=False, precision="double", device=self._sionna_device
        )

    def __call__(self, draws: Draws) -> Batch:
        """Simulate the samples of some draws.

        :param draws: random numbers of n samples
        :returns: the recipe's arrays of X, Y, Z, each complex64 [n, antennas, crop_taps] on the engine's device
        """
        batches = [self._batch(draws, slice(start, start + BATCH)) for start in range(0, len(draws.velocity), BATCH)]
        return {name: torch.cat([batch[name] for batch in batches]) for name in self.looks}

    @torch.no_grad()
    def _batch(self, draws: Draws, rows: slice) -> Batch:
        velocity, phases, coupling = (
            torch.as_tensor(part[rows], device=self.device) for part in (draws.velocity, draws.phases, draws.coupling)
        )
        topology = self._topology(velocity.double())
        paths: dict[tuple[int, float], tuple[torch.Tensor, torch.Tensor]] = {}
        arrays = {}
        for name, look in self.looks.items():
            key = (look.band, look.carrier_hz)
            if key not in paths:
                rays = self._rays(phases[:, look.band].double(), coupling.long())
                paths[key] = self._impulse_response(rays, topology, look.carrier_hz)
            h, delays = paths[key]
            instant = h[..., 1:] if look.time_s else h[..., :1]
            response = cir_to_ofdm_channel(self.frequencies + look.offset_hz, instant, delays)
            arrays[name] = to_angular_delay(response[:, 0, :, 0, 0, 0], self.recipe.crop_taps).to(torch.complex64)
        return arrays

    def _rays(self, phases: torch.Tensor, coupling: torch.Tensor) -> Rays:
        n = len(phases)

        def spread(values: np.ndarray) -> torch.Tensor:  # [...] -> [n, 1 BS, 1 UE, ...]
            return torch.as_tensor(values, dtype=torch.float64, device=self.device).expand(n, 1, 1, *np.shape(values))

        def coupled(values: np.ndarray, row: int) -> torch.Tensor:
            return spread(values).gather(-1, coupling[:, row, None, None])

        p = self.profile
        four = torch.zeros(*phases.shape, 4, dtype=torch.float64, device=self.device)
        four[..., 0] = phases  # theta-theta, the only entry that vertical antennas see
        return Rays(
            delays=spread(p.delays * self.recipe.delay_spread_ns * 1e-9), powers=spread(p.powers),
            aod=spread(p.aod), zod=coupled(p.zod, ZOD), aoa=coupled(p.aoa, AOA), zoa=coupled(p.zoa, ZOA),
            xpr=spread(np.ones_like(p.aod)), phases=four[:, None, None],
        )  # fmt: skip

    def _topology(self, velocity: torch.Tensor) -> Topology:
        n = len(velocity)
        los = self.profile.los or (0.0, 0.0, 0.0, 0.0)
        aod, aoa, zod, zoa = (
            torch.full((n, 1, 1), float(angle), dtype=torch.float64, device=self.device) for angle in los
        )
        level = torch.zeros(n, 1, 3, dtype=torch.float64, device=self.device)
        return Topology(
            velocities=velocity[:, None], moving_end="rx",
            los_aoa=aoa, los_aod=aod, los_zoa=zoa, los_zod=zod,
            los=torch.full((n, 1, 1), self.profile.los is not None, device=self.device),
            distance_3d=torch.zeros(n, 1, 1, dtype=torch.float64, device=self.device),
            tx_orientations=level, rx_orientations=level + torch.tensor([np.pi, 0.0, 0.0], device=self.device),
        )  # fmt: skip

    def _impulse_response(self, rays: Rays, topology: Topology, carrier_hz: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Path coefficients at time 0 and at the horizon, [n, rx, rx_ant, tx, tx_ant, path, time], and delays [s].

        The BS antennas are handed on as receive antennas, which reciprocity allows: the OFDM response would otherwise
        evaluate the phase of every path once for each transmit antenna.
        """
        k_factor = torch.full(
            (len(topology.velocities), 1, 1), self.profile.k_factor, dtype=torch.float64, device=self.device
        )
        rate_hz = 1 / self.recipe.horizon_s if self.recipe.horizon_s else 1.0
        h, delays = self.generators[carrier_hz](2, rate_hz, k_factor, rays, topology)
        return h.permute(0, 2, 5, 1, 4, 3, 6), delays.permute(0, 2, 1, 3)
