"""The SNR gate of ADJSCC and RD-JSCC: features weighted by what the link is worth.

Source: J. Xu, B. Ai, N. Wang and W. Chen, "Deep joint source-channel coding for CSI feedback: an end-to-end approach", IEEE JSAC 2023.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zoo.nn.start import zeroed

HIDDEN = 16  # which the published sizes ask for
UNIT_DB = 10.0  # the SNR enters in bels, so that it is of the features' order


class SnrGate(nn.Module):
    """Scale channels by factors in (0, 1): mean over positions (+) SNR -- dense 16, ReLU -- dense, sigmoid.

    :param channels: of the features; 33 ``channels`` + 32 parameters
    """

    START = 0.5  # factor of every channel before training

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Linear(channels + 1, HIDDEN), nn.ReLU(), zeroed(nn.Linear(HIDDEN, channels)), nn.Sigmoid()
        )

    def forward(self, features: Tensor, snr_db: Tensor) -> Tensor:
        """
        :param features: [n, channel, height, width]
        :param snr_db: of the link, [n]
        """
        return features * self.factors(features.mean((2, 3)), snr_db)[:, :, None, None]

    def factors(self, seen: Tensor, snr_db: Tensor) -> Tensor:
        """Factors of each channel, [n, channel].

        :param seen: what they go by beside the SNR, [n, channel]
        """
        return self.weights(torch.cat((seen, snr_db[:, None].to(seen.dtype) / UNIT_DB), 1))
