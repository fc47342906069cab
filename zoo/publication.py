"""Records of families on the Hub: which files each model has, with their digests, and at which commit they stand.

A family is the models of one name but for the rate. Its repository holds a folder for each rate, the parts that they share, and a
``manifest.json``; what this package knows of it is a file ``<family>.json`` in :data:`PUBLISHED`, which adds the repository and the commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zoo.errors import ZooError
from zoo.registry import FILES, PART

PUBLISHED = Path(__file__).with_name("manifests")  # in the repository a link to manifests/models
DATASETS = PUBLISHED.resolve().with_name("datasets")  # manifests of data sets, in a checkout
MANIFEST = "manifest.json"
CARD, PICTURE = "README.md", "rd.png"

Part = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=96)]  # of a path: never '..', never a slash
_M = TypeVar("_M", bound="_Model")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class FileRecord(_Model):
    """One file."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=1 << 40)


class ModelRecord(_Model):
    """One model: the folder it is in, its four files, its parts in the repository's root, and what it is worth."""

    folder: Part
    files: dict[Part, FileRecord]
    parts: dict[Annotated[str, Field(pattern=PART, max_length=96)], FileRecord] = {}  # weights shared with other models
    parameters: int = Field(ge=0)
    nmse: str  # of :func:`zoo.results.summary`

    @model_validator(mode="after")
    def _has_the_four_files(self) -> Self:
        if self.files.keys() != FILES.keys():
            raise ValueError(f"files must be {', '.join(FILES)}")
        for name, record in self.files.items():
            if record.bytes > FILES[name]:
                raise ValueError(f"{name} must be of at most {FILES[name]} bytes")
        return self

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 by name of the file."""
        return {name: record.sha256 for name, record in {**self.files, **self.parts}.items()}


class Family(_Model):
    """``manifest.json`` of a family's repository."""

    format: Literal["csi-feedback-zoo-family"] = "csi-feedback-zoo-family"
    format_version: Literal[1] = 1  # of the format
    family: Part
    models: dict[Part, ModelRecord]
    pages: dict[Part, FileRecord]  # the card and its picture

    @property
    def files(self) -> dict[str, FileRecord]:
        """Every file but the manifest itself, by its path in the repository."""
        own = {f"{model.folder}/{name}": file for model in self.models.values() for name, file in model.files.items()}
        shared = {name: file for model in self.models.values() for name, file in model.parts.items()}
        return {**own, **shared, **self.pages}

    def in_folder(self, folder: str) -> ModelRecord | None:
        """The model in a folder."""
        return next((model for model in self.models.values() if model.folder == folder), None)


class Publication(_Model):
    """A family as published: a file of :data:`PUBLISHED`."""

    repo: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    tag: str | None
    manifest: FileRecord  # manifest.json, whose content is family
    family: Family


def parse(kind: type[_M], text: str, source: str) -> _M:
    """Check and take a record that was read from somewhere.

    :param kind: :class:`Family` or :class:`Publication`
    :param source: where it came from, for messages
    :raises ZooError: it is no such record
    """
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ZooError(f"{source} is not JSON: {error}") from None
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ZooError(f"{source} is no manifest of models: {place[:200]}: {first['msg']}") from None


def to_json(record: _Model) -> str:
    """A record as the text of its file."""
    return json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def publications(directory: Path | None = None) -> Iterator[Publication]:
    """What has been published, by family.

    :param directory: of manifests; :data:`PUBLISHED` if not given
    :raises ZooError: a file there is no manifest
    """
    for path in sorted((directory or PUBLISHED).glob("*.json")):
        found = read(path)
        if found is not None:
            yield found


def read(path: Path) -> Publication | None:
    """The publication in a file, or None where there is no file.

    :raises ZooError: it is something else, or of another family than its name says
    """
    try:
        found = parse(Publication, path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ZooError(f"cannot read {path}: {error}") from None
    if found.family.family != path.stem:
        raise ZooError(f"{path} is of the family {found.family.family}; name it {found.family.family}.json")
    return found


def published() -> dict[str, Publication]:
    """Publication of each published model, by the model's name."""
    return {name: publication for publication in publications() for name in publication.family.models}
