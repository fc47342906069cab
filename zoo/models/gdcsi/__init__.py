"""GD-CSI: a fixed-rate payload at the UE, conditional denoising with side information at the base station."""

from zoo.models.gdcsi.codec import GDCSI, MAX_WEIGHT
from zoo.models.gdcsi.config import GDCSIConfig
from zoo.models.gdcsi.unet import CLIP

__all__ = ["CLIP", "GDCSI", "MAX_WEIGHT", "GDCSIConfig"]
