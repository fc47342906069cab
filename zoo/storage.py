"""How a file holds weights: in one floating point type, or with the large matrices in eight bits and a scale for each row or column.

In the form ``int8`` a matrix [out, in] or the kernel of a convolution [out, in, height, width] of at least :data:`MATRIX` entries lies in
the file as int8 of the same shape. Beside it, under its name with :data:`SCALE` after it, lie its scales, float32, one for each row, [out, 1, ...], or one
for each column, [1, in, ...]; the product of the two stands for the matrix. Rows suit what a network puts out, columns what it takes in: cells
of a sample differ in size by orders of magnitude. The one that errs less is taken. All other weights are float16. A scale has so few digits that the
products are exact in single precision: what was read can be stored again, and no value changes.

In every form the ``scale`` of the samples and the variances of batch normalisation keep their type, as integers do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import ZooError, unknown
from zoo.registry import CONFIG_FILE

DTYPES = {name: getattr(torch, name) for name in ("float32", "float64", "float16", "bfloat16")}  # of a model in memory
FORMS = {**DTYPES, "int8": torch.float16}  # of a file, with the type of what is not quantised
MATRIX, ROW = 4096, 8  # entries of a matrix that is quantised, and of what has a scale of its own, at least
SCALE = ":scale"  # after the name of a quantised matrix; no name of a weight has a colon
LARGEST = 127  # absolute value in int8: the range is symmetric
DIGITS = 17  # bits of a scale; with the 7 of an entry no more than the 24 of single precision
EXACT = (  # last parts of the names of what keeps its type: what all else is multiplied by, variances beyond half precision's range
    "scale", "spread", "running_var",
)  # fmt: skip


def store(weights: Mapping[str, Tensor], form: str) -> dict[str, Tensor]:
    """Put weights into the form that a file holds them in, on the CPU.

    :param weights: by name, any shape, on any device
    :param form: one of :data:`FORMS`
    :raises ZooError: there is no such form
    """
    if form not in FORMS:
        raise ZooError(unknown("dtype", form, FORMS))
    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        held = value.detach().cpu().contiguous()
        if form == "int8" and is_matrix(held):
            stored[name], stored[name + SCALE] = quantise(held)
        else:
            stored[name] = held if _is_exact(name, held) else held.to(FORMS[form])
    return stored


def restore(
    stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor], form: object, source: Path
) -> dict[str, Tensor]:
    """Undo :func:`store`, up to rounding, and see that nothing is missing and nothing is there besides.

    :param stored: as a file holds them
    :param wanted: weights of the names, shapes and sorts (floating, or a type of integers) that they must have
    :param form: of the file, as its config says
    :param source: where they come from, for messages
    :raises ZooError: there is no such form; a weight or a scale is missing, superfluous, of another shape or type or not finite; or a
        scale is not positive
    """
    if not isinstance(form, str) or form not in FORMS:
        raise ZooError(f"{source / CONFIG_FILE}: {unknown('dtype', str(form), FORMS)}")
    held = {name for name in stored if form == "int8" and name.endswith(SCALE)}
    scales = {name.removesuffix(SCALE): stored[name] for name in held}
    weights = {name: value for name, value in stored.items() if name not in held}
    for name in wanted:
        if name not in weights:
            raise ZooError(f"{source} lacks the weight {name!r} that its config asks for")
    for name in scales:
        if name not in weights:
            raise ZooError(f"{source} has a scale of {name!r}, but no such weight")
    for name, value in weights.items():
        if name not in wanted:
            raise ZooError(f"{source} has a weight {name!r} that its config knows nothing of")
        like = wanted[name]
        if value.shape != like.shape:
            raise ZooError(f"{source}: {name!r} has shape {list(value.shape)}; its config asks for {list(like.shape)}")
        if form == "int8" and value.dtype == torch.int8 and like.is_floating_point():
            if name not in scales:
                raise ZooError(f"{source}: {name!r} is in eight bits, but has no scale")
            _require_scale(scales[name], value, f"{source}: the scale of {name!r}")
            weights[name] = dequantise(value, scales[name])
        elif name in scales:
            raise ZooError(f"{source} has a scale of {name!r}, which is no matrix in eight bits")
        elif value.dtype != like.dtype and not (value.is_floating_point() and like.is_floating_point()):
            raise ZooError(f"{source}: {name!r} is {_type(value)}; its config asks for {_type(like)}")
        if weights[name].is_floating_point() and not bool(torch.isfinite(weights[name]).all()):
            raise ZooError(f"{source}: {name!r} holds values that are not finite")
    return weights


def is_matrix(value: Tensor) -> bool:
    """Whether a weight is quantised in the form ``int8``: a matrix or a kernel, large enough, with rows or columns that are worth a scale."""
    return value.is_floating_point() and value.ndim in (2, 4) and value.numel() >= MATRIX and bool(_axes(value))


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Round to multiples of scales, each the smallest that the largest entry of its row or column allows.

    The error of an entry is at most half its scale. What :func:`dequantise` gives is met exactly.

    :param matrix: floating [rows, columns, ...], finite, with at least :data:`ROW` entries a row or a column
    :returns: int8 of the same shape, in -127 ... 127, and the scales, float32 [rows, 1, ...] or [1, columns, ...], positive
    """
    return min((_rounded(matrix.double(), axis) for axis in _axes(matrix)), key=lambda found: _error(matrix, *found))


def dequantise(codes: Tensor, scale: Tensor) -> Tensor:
    """The matrix that was rounded, float32.

    :param codes: int8 [rows, columns, ...]
    :param scale: float32 [rows, 1, ...] or [1, columns, ...]
    """
    return codes.float() * scale


def _axes(matrix: Tensor) -> list[int]:
    """Axes along which there are enough entries for each scale: 0 for one a row, 1 for one a column."""
    return [axis for axis in (0, 1) if matrix.numel() >= ROW * matrix.shape[axis]]


def _rounded(matrix: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    others = [other for other in range(matrix.ndim) if other != axis]
    largest = matrix.abs().amax(others, keepdim=True) / LARGEST
    digits, exponent = torch.frexp(largest.clamp(min=torch.finfo(torch.float32).tiny))
    scale = torch.ldexp(torch.ceil(digits * 2**DIGITS), exponent - DIGITS)
    return torch.round(matrix / scale).to(torch.int8), scale.float()


def _error(matrix: Tensor, codes: Tensor, scale: Tensor) -> float:
    return float((dequantise(codes, scale) - matrix.double()).square().sum())


def _is_exact(name: str, value: Tensor) -> bool:
    return name.rpartition(".")[2] in EXACT or not value.is_floating_point()


def _require_scale(scale: Tensor, codes: Tensor, what: str) -> None:
    allowed = [[size if axis == along else 1 for axis, size in enumerate(codes.shape)] for along in (0, 1)]
    if scale.dtype != torch.float32 or list(scale.shape) not in allowed:
        raise ZooError(
            f"{what} is {_type(scale)} {list(scale.shape)}; it must be float32 {' or '.join(map(str, allowed))}"
        )
    if not bool((torch.isfinite(scale) & (scale > 0)).all()):
        raise ZooError(f"{what} holds values that are not positive and finite")


def _type(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
