"""Payload files: what a phone sends, for many samples, with the name of the model that can read it.

CSIZOO1\\n
{"model": "csinet-cdl-132b", "weights_sha256": "...", "bits": 132, "payload_bytes": 17, "count": 1000}\\n
1000 payloads of 17 bytes, back to back
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import ZooError
from zoo.files import whole

MAGIC = b"CSIZOO1\n"


class Header(BaseModel):
    """The second line of a payload file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(min_length=1)
    weights_sha256: str = Field(min_length=1)
    bits: int = Field(ge=1)
    payload_bytes: int = Field(ge=1)
    count: int = Field(ge=0)


def write(path: Path, header: Header, payloads: Sequence[bytes]) -> None:
    """Write a payload file.

    :raises ZooError: it cannot be written
    """
    with whole(path) as draft:
        draft.write_bytes(MAGIC + header.model_dump_json().encode() + b"\n" + b"".join(payloads))


def read(path: Path) -> tuple[Header, list[bytes]]:
    """Read a payload file.

    :raises ZooError: there is none, it is something else, cut short, or too long
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ZooError(f"cannot read payloads from {path}: {error.strerror}") from None
    if not raw.startswith(MAGIC):
        raise ZooError(
            f"{path} is no payload file: it does not begin with {MAGIC.decode().strip()}; zoo compress writes them"
        )
    line, _, body = raw[len(MAGIC) :].partition(b"\n")
    try:
        header = Header.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ZooError(f"{path} has a damaged header: {place}{': ' if place else ''}{first['msg']}") from None
    if header.payload_bytes != -(-header.bits // 8):
        raise ZooError(f"{path} has a damaged header: {header.bits} bits do not make {header.payload_bytes} bytes")
    size, whole_size = header.payload_bytes, header.payload_bytes * header.count
    if len(body) < whole_size:
        raise ZooError(f"{path} is cut short: {len(body) // size} of its {header.count} payloads are whole")
    if len(body) > whole_size:
        raise ZooError(f"{path} is too long: {len(body) - whole_size} bytes follow its {header.count} payloads")
    return header, [body[start : start + size] for start in range(0, whole_size, size)]


def require_model(path: Path, header: Header, config: Mapping[str, Any]) -> None:
    """See that payloads and decoder belong together.

    :param config: of the model that is to decode, as :func:`zoo.registry.read_config` gives it
    :raises ZooError: the payloads are of another model, or of other weights under the same name
    """
    sent, given = (header.model, header.weights_sha256), (config["name"], config["weights_sha256"])
    if sent != given:
        told = [f"{name} ({digest[:12]})" for name, digest in (sent, given)]
        raise ZooError(f"{path} holds payloads of {told[0]}; {told[1]} cannot read them")
