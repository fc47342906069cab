"""From a recipe to shards: who writes what, how large it gets, how much memory a worker needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from datagen.errors import DatagenError
from datagen.recipe import Recipe

CHUNK = 256  # samples of an inner chunk, and the block that engines evaluate: see simulate.py
LARGEST_SHARD = 1 << 20
SHARD = 4096  # samples of a shard by default: one task, one file an array, one ledger line
BYTES_PER_CELL = 8  # complex64

WORKER_BASE_BYTES = 450 << 20  # a worker with torch and zarr loaded, before any work (benchmarks/results/datagen.json)
COPIES = 4  # of a shard's samples that exist at once while it is simulated, encoded and read back


@dataclass(frozen=True, order=True)
class Shard:
    """A run of samples of one split: one task, one file in each array."""

    split: str
    index: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.split}-{self.index:06d}"

    def __str__(self) -> str:
        return f"{self.split} shard {self.index} (samples {self.start} to {self.stop - 1})"


@dataclass(frozen=True)
class Plan:
    """A recipe cut into shards of ``shard_samples``."""

    recipe: Recipe
    shard_samples: int = SHARD

    def __post_init__(self) -> None:
        if not CHUNK <= self.shard_samples <= LARGEST_SHARD or self.shard_samples % CHUNK:
            raise DatagenError(
                f"shard size {self.shard_samples} is not allowed; give a multiple of {CHUNK} up to {LARGEST_SHARD}"
            )

    @property
    def shards(self) -> list[Shard]:
        return [
            Shard(split, index, start, min(start + self.shard_samples, size))
            for split, size in self.recipe.splits.items()
            for index, start in enumerate(range(0, size, self.shard_samples))
        ]

    @property
    def shard_count(self) -> int:
        return sum(math.ceil(size / self.shard_samples) for size in self.recipe.splits.values())

    @property
    def samples(self) -> int:
        return sum(self.recipe.splits.values())

    def sample_bytes(self, split: str) -> int:
        """Bytes of one sample of a split in all its arrays."""
        return BYTES_PER_CELL * sum(math.prod(shape) for shape in self.recipe.shapes(split).values())

    @property
    def store_bytes(self) -> int:
        """Bytes on disk, nearly: arrays are stored uncompressed, in whole chunks."""
        return sum(
            math.ceil(size / CHUNK) * CHUNK * self.sample_bytes(split) for split, size in self.recipe.splits.items()
        )

    @property
    def worker_bytes(self) -> int:
        """Estimated peak memory of one worker process."""
        return WORKER_BASE_BYTES + COPIES * self.shard_samples * max(map(self.sample_bytes, self.recipe.splits))
