"""What MATLAB files hold, found out before anything is written: which part each plays, whether every value is in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datagen.errors import DatagenError
from datagen.matlab import Variable
from datagen.progress import progress_bar
from datagen.recipe import SPLITS, MatfileRecipe, parse
from datagen.recipe.matfile import ANGLES, DELAYS
from datagen.sources import Source, find_variable

OFFICIAL_ROWS = {"train": 100_000, "val": 30_000, "test": 20_000, "full": 20_000}  # of the CsiNet files
SLACK = 1e-6  # by which a value of HT may lie outside 0...1: rounding
LARGEST = 1e18  # part of a number of HF_all
COMPARED = 64  # first test samples that are held to HF_all
INCONSISTENT = 0.5  # relative error from which the two files are said not to belong together; strangers have about 1
OUTDOOR_TAPS = 6.0  # mean delay from which samples look like outdoor ones; the official sets have about 14, indoor 1.4

_NAME = re.compile(r"data_h(?:(train|val|test)|testf)(in|out)(_all)?\.mat", re.IGNORECASE)


@dataclass(frozen=True)
class Survey:
    """What is to be imported, and what was found out about it."""

    recipe: MatfileRecipe
    sources: tuple[Source, ...]
    findings: list[str]  # a line for each file
    warnings: list[str]
    facts: dict[str, Any]  # JSON-ready


@dataclass(frozen=True)
class _Claim:
    """What a file's name says, as the official files are called."""

    part: str | None
    environment: str | None

    @classmethod
    def of(cls, path: Path) -> _Claim:
        match = _NAME.fullmatch(path.name)
        if match is None or bool(match[1]) == bool(match[3]):
            return cls(None, None)
        return cls(match[1].lower() if match[1] else "full", f"{match[2].lower()}door")


def survey(
    files: Sequence[str | Path] = (),
    *,
    parts: Mapping[str, str | Path] | None = None,
    environment: str | None = None,
    name: str = "",
    dataset_version: int = 1,
    progress: bool = False,
) -> Survey:
    """Look through MATLAB files in the form of the CsiNet sets: every value is read once, nothing is written.

    A file's split follows from its name or its number of rows where they are official ones and do not contradict each other;
    three files of no official name or size are train, val and test in this order.

    :param files: files of ``HT``, one a split
    :param parts: files whose part is said: ``train``, ``val``, ``test``, or ``full`` (``HF_all`` of the test split)
    :param environment: ``indoor`` or ``outdoor``, where no name says it
    :param name: of the data set, by default ``csinet-indoor`` or ``csinet-outdoor`` for official files, else ``imported``
    :param progress: show a progress bar on stderr
    :raises DatagenError: a file is not what it should be, holds a value out of range, or its part is not clear
    """
    said = {part: Path(path).absolute() for part, path in (parts or {}).items()}
    loose = [Path(path).absolute() for path in files]
    for path in (*loose, *said.values()):
        if not path.is_file():
            raise DatagenError(f"{path} is {'no file' if path.exists() else 'not there'}; give MATLAB files")
        if path in loose and _Claim.of(path).part == "full":
            raise DatagenError(f"{path.name} is a full-band file by its name; give it with --full")
    variables = {part: find_variable(path, part) for part, path in said.items()}
    variables = _assign([find_variable(path, "") for path in loose], variables)
    if not variables.keys() & set(SPLITS):
        raise DatagenError(
            "nothing to import; give files of HT, e.g. DATA_Htrainout.mat DATA_Hvalout.mat DATA_Htestout.mat"
        )
    full, test = variables.get("full"), variables.get("test")
    if full and not test:
        raise DatagenError(f"{full.path.name} belongs to a test split; give its HT file too")
    if full and test and full.rows != test.rows:
        raise DatagenError(
            f"{full.path.name} has {full.rows} rows and {test.path.name} {test.rows}; give the two files of one test split"
        )
    environment, claims = _environment([variable.path for variable in variables.values()], environment)

    sources, scans = [], {}
    work = sum(variable.path.stat().st_size + 8 * variable.values for variable in variables.values())
    with progress_bar(work, "check", "B", progress) as advance:
        for part, variable in variables.items():
            sources.append(Source.read(part, variable, advance))
            scans[part] = _scan(variable, (-LARGEST, LARGEST) if part == "full" else (-SLACK, 1 + SLACK), advance)

    for field in ("sha256", "file"):
        seen: dict[str, Source] = {}
        for source in sources:
            twin = seen.setdefault(getattr(source.record, field), source)
            if twin is not source:
                what = "hold the same bytes; give each once" if field == "sha256" else "have the same name; rename one"
                raise DatagenError(f"{twin.variable.path} and {source.variable.path} {what}")
    official = all(variable.rows == OFFICIAL_ROWS[part] for part, variable in variables.items())
    splits = [part for part in variables if part != "full"]
    if not name and official and environment:
        name = "-".join(["csinet", environment, *([] if len(splits) == len(SPLITS) else splits)])
    recipe = parse({
        "scenario": "matfile", "name": name, "dataset_version": dataset_version, "environment": environment,
        **{part: variables[part].rows for part in splits},
        **{f"{source.part}_source": source.record.model_dump() for source in sources},
    }, "import")  # fmt: skip
    assert isinstance(recipe, MatfileRecipe)

    findings: list[str] = []
    warnings: list[str] = []
    facts: list[dict[str, Any]] = []
    for source in sources:
        variable, scan = source.variable, scans[source.part]
        known = variable.rows == OFFICIAL_ROWS[source.part]
        what = f"the official {source.part} file by its shape" if known else f"no official size, taken as {source.part}"
        fact: dict[str, Any] = {
            "part": source.part,
            "path": str(variable.path),
            "official_shape": known,
            **source.record.model_dump(),
        }
        line = f"{variable.path.name}: {variable.name} {'complex ' if variable.complex else ''}{variable.dtype} [{variable.rows}, {variable.columns}], MATLAB {variable.version}, {what}"
        if source.part == "full":
            assert test is not None
            fact["relative_error"], fact["scale"] = _compare(scans["test"].head, scan.head)
            line += f"; the first {len(scan.head)} test rows, padded and transformed, give it to {fact['relative_error']:.2g} relative, scale {fact['scale']:.3g}"
            if not fact["relative_error"] < INCONSISTENT:
                warnings.append(
                    f"{variable.path.name} does not belong to {test.path.name}: their rows differ by {fact['relative_error']:.2g}"
                )
        else:
            fact["mean_delay_taps"] = scan.mean_delay
            line += f"; mean delay {scan.mean_delay:.1f} taps"
            if scan.empty:
                warnings.append(
                    f"{variable.path.name}: {scan.empty} of its rows are 0.5 throughout, empty channels, which have no NMSE"
                )
            looks = "outdoor" if scan.mean_delay >= OUTDOOR_TAPS else "indoor"
            if environment and looks != environment:
                warnings.append(
                    f"{variable.path.name} should be {environment}, but its mean delay of {scan.mean_delay:.1f} taps looks {looks}"
                )
        findings.append(f"{line}; sha256 {source.record.sha256[:12]}")
        facts.append(fact)
    claimed = (
        f"{environment} {'by the names of the files' if claims else 'as said'}"
        if environment
        else "neither names nor options say"
    )
    findings.append(f"indoor or outdoor: {claimed}; imported as {recipe.label}")
    return Survey(
        recipe, tuple(sources), findings, warnings, {"environment": environment, "sources": facts, "warnings": warnings}
    )


def _assign(loose: list[Variable], said: dict[str, Variable]) -> dict[str, Variable]:
    """Which part each variable plays, in the order of :data:`SPLITS` and ``full``.

    :raises DatagenError: names, sizes and options contradict each other, or leave it open
    """
    found = dict(said)
    for part, variable in said.items():
        named = _Claim.of(variable.path).part
        if named not in (None, part):
            raise DatagenError(f"{variable.path.name} is given as {part} and named as {named}; give it as --{named}")
    by_rows = {rows: part for part, rows in OFFICIAL_ROWS.items() if part != "full"}
    guesses = [(_Claim.of(variable.path).part, by_rows.get(variable.rows)) for variable in loose]
    positions = (
        SPLITS if len(loose) == len(SPLITS) and not any(any(guess) for guess in guesses) else (None,) * len(loose)
    )
    for variable, (named, sized), placed in zip(loose, guesses, positions, strict=True):
        file = variable.path.name
        if named and sized and named != sized:
            raise DatagenError(
                f"{file} is named as {named} and has the {variable.rows} rows of the official {sized} file; say which with --{named} or --{sized}"
            )
        guess = named or sized or placed
        if guess is None:
            raise DatagenError(
                f"{file} [{variable.rows}, {variable.columns}] is no official file; say its split with --train, --val or --test"
            )
        if guess in found:
            raise DatagenError(f"{found[guess].path.name} and {file} are both {guess}; give one file a split")
        found[guess] = variable
    return {part: found[part] for part in (*SPLITS, "full") if part in found}


def _environment(paths: list[Path], said: str | None) -> tuple[str | None, bool]:
    """Indoor or outdoor, and whether the files' names say so.

    :raises DatagenError: they contradict each other
    """
    claims = {claim: path.name for path in paths if (claim := _Claim.of(path).environment)}
    if len(claims) > 1:
        raise DatagenError(
            f"{claims['indoor']} is indoor by its name and {claims['outdoor']} outdoor; give files of one set"
        )
    claim = next(iter(claims), None)
    if said and claim and said != claim:
        raise DatagenError(
            f"{claims[claim]} is {claim} by its name; leave --environment {said} out, or rename the file"
        )
    return said or claim, claim is not None


@dataclass(frozen=True)
class _Scan:
    mean_delay: float  # taps, of HT
    empty: int  # rows of HT that hold no channel
    head: NDArray[Any]  # the first rows


def _scan(variable: Variable, limits: tuple[float, float], advance: Callable[[int], object]) -> _Scan:
    """Look at every value.

    :raises DatagenError: one is not finite or outside the limits
    """
    parts, low, high = 2 if variable.complex else 1, *limits
    head = np.empty((parts, min(variable.rows, COMPARED), variable.columns))
    power, used = np.zeros(variable.columns), np.zeros(variable.rows, bool)
    for part, column, row, values in variable.tiles():
        wrong = ~(np.isfinite(values) & (values >= low) & (values <= high))
        if wrong.any():
            c, r = np.argwhere(wrong)[0]
            where = f"{'imaginary part of ' if part else ''}{variable.name}({row + r + 1}, {column + c + 1})"
            allowed = f"finite and at most {LARGEST:g}" if variable.complex else "in 0...1, centred at 0.5"
            raise DatagenError(
                f"{variable.path}: row {row + r + 1}: {where} is {values[c, r]:g}; every value must be {allowed}: give another file"
            )
        if not variable.complex:
            power[column : column + len(values)] += np.square(values - 0.5, dtype=np.float64).sum(axis=1)
            used[row : row + values.shape[1]] |= (values != 0.5).any(axis=0)
        if row < head.shape[1]:
            rows = min(row + values.shape[1], head.shape[1])
            head[part, row:rows, column : column + len(values)] = values[:, : rows - row].T
        advance(8 * values.size)
    if variable.complex:
        return _Scan(np.nan, 0, head[0] + 1j * head[1])
    profile = power.reshape(2 * ANGLES, DELAYS).sum(axis=0)
    if not profile.any():
        raise DatagenError(
            f"{variable.path}: every value of {variable.name} is 0.5, an empty channel: give another file"
        )
    return _Scan(float(profile @ np.arange(DELAYS) / profile.sum()), int((~used).sum()), head[0])


def _compare(samples: NDArray[np.float64], full: NDArray[np.complex128]) -> tuple[float, float]:
    """How far rows of ``HT`` [n, 2048] give those of ``HF_all`` [n, 4000] as CsiNet's test takes them, whatever their scale.

    :returns: relative error once a sample's size is fitted, and the ratio of the sizes
    """
    from datagen.scenarios.matfile import band, centre

    ours = band(centre(samples)).reshape(len(full), -1)
    norms = np.linalg.norm(ours, axis=1), np.linalg.norm(full, axis=1)
    inner = np.abs(np.einsum("ij,ij->i", ours.conj(), full))
    tiny = np.finfo(np.float64).tiny
    rest = 1 - np.square(inner / np.maximum(norms[0] * norms[1], tiny))
    return float(np.sqrt(np.clip(rest, 0, None).mean())), float(np.median(norms[1] / np.maximum(norms[0], tiny)))
