"""Recipe of samples imported from MATLAB files in the form of the CsiNet data sets."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from datagen.recipe.base import SPLITS, Recipe, SourceFile

ANGLES, DELAYS, SUBCARRIERS = 32, 32, 125
FREQUENCIES = 257  # of the channel before its delays were cut; the first SUBCARRIERS of them are in the full files


class MatfileRecipe(Recipe):
    """Samples of ``HT`` [N, 2 x 32 x 32] and, for the test split, responses of ``HF_all`` [N, 32 x 125]: see datagen/FORMAT.md.

    What is imported is the files' content, known by its digests; where they lie is not part of it.
    """

    LICENCE: ClassVar[str] = "LicenseRef-unknown"  # the files come without one
    REFERENCES: ClassVar[tuple[str, ...]] = (
        "C.-K. Wen, W.-T. Shih, S. Jin, Deep Learning for Massive MIMO CSI Feedback, IEEE Wireless Communications Letters, 2018",
    )

    scenario: Literal["matfile"] = "matfile"
    seed: int = Field(0, ge=0, le=0, description="nothing is drawn: always 0")
    train: int = Field(0, ge=0, description="samples in the train split")
    val: int = Field(0, ge=0, description="samples in the val split")
    test: int = Field(0, ge=0, description="samples in the test split")
    convention: Literal["official"] = Field("official", description="domain and scale of the samples: as in the files")
    environment: Literal["indoor", "outdoor"] | None = Field(None, description="what the files were said to be")
    train_source: SourceFile | None = Field(None, description="HT of the train split")
    val_source: SourceFile | None = Field(None, description="HT of the val split")
    test_source: SourceFile | None = Field(None, description="HT of the test split")
    full_source: SourceFile | None = Field(None, description="HF_all of the test split")

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        return {**data, "name": "imported"} if isinstance(data, dict) and not data.get("name") else data

    @model_validator(mode="after")
    def _sources_fit(self) -> Self:
        for split in SPLITS:
            source, size = self.sources.get(split), getattr(self, split)
            if size != (source.rows if source else 0):
                raise ValueError(
                    f"{split} has {size} samples and its source {source.rows if source else 'is not given'}"
                )
            if source and (source.variable, source.columns) != ("HT", 2 * ANGLES * DELAYS):
                raise ValueError(f"the source of {split} is not HT [N, {2 * ANGLES * DELAYS}]")
        full = self.full_source
        if full and (full.variable, full.columns, full.rows) != ("HF_all", ANGLES * SUBCARRIERS, self.test):
            raise ValueError(f"full_source is not HF_all [{self.test}, {ANGLES * SUBCARRIERS}]")
        return self

    def shapes(self, split: str) -> dict[str, tuple[int, int]]:
        with_full = split == "test" and self.full_source is not None
        return {"X": (ANGLES, DELAYS), **({"H": (ANGLES, SUBCARRIERS)} if with_full else {})}

    @property
    def sources(self) -> dict[str, SourceFile]:
        found = {part: getattr(self, f"{part}_source") for part in (*SPLITS, "full")}
        return {part: source for part, source in found.items() if source is not None}
