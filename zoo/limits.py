"""Gaussian rate-distortion limits from covariances: what no code of a Gaussian source with these statistics can beat.

Sources: T. M. Cover, J. A. Thomas, Elements of Information Theory, ch. 10 (reverse water-filling); H. S. Witsenhausen, "Indirect
rate distortion problems", IEEE Trans. IT 1980 (prediction: code the estimate, add its error); A. D. Wyner, "The rate-distortion
function for source coding with side information at the decoder II", 1978 (side information that only the decoder has costs a
Gaussian source no rate). Over a feedback link: source and channel coding apart from each other, as C. E. Shannon, "A mathematical theory of
communication", 1948, puts them; what a joint code is held against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.covariances import Array, Covariances, Statistics, as_arrays, noise_variance, principal
from zoo.data import Batch, Store
from zoo.errors import ZooError
from zoo.metrics import nmse
from zoo.models.klt import KLT
from zoo.registry import family_of
from zoo.results import domain
from zoo.uplink import Channel, capacity_bits

Array1 = NDArray[np.float64]
Bits = TypeVar("Bits", float, Array1)
SAMPLES = 10_000  # that covariances are taken of
CHANNELS = 2000  # of a link, that its separation limits are averaged over
KLT_SAMPLES = 2000  # that KLT codes are measured on
KLT_STEP = 16  # bits between the KLT codes that are measured
OUTAGES = (0.01, 0.1)  # shares of the channels that do not carry the outage capacity
PATH_SAMPLES = 1000  # that the limit with known paths is averaged over
VELOCITIES = 50  # of a law's, that the limit with known velocity is averaged over


def water_level(variances: NDArray[np.floating], bits: Bits) -> Bits:
    """Level theta of reverse water-filling over circular complex components: sum of max(0, log2(variance / theta)) = bits.

    :param variances: of the principal components, shape [component]
    :param bits: rate, 0 and up; or several, shape [rate]
    """
    ordered = np.sort(np.asarray(variances, dtype=np.float64))[::-1]
    ordered = ordered[ordered > 0]
    if not len(ordered):
        return np.minimum(bits, 0)  # nothing to tell
    logs = np.cumsum(np.log2(ordered))
    reached = logs - np.arange(1, len(ordered) + 1) * np.log2(ordered)  # rates at which the level sinks to a component
    active = np.searchsorted(reached, bits, side="right")
    return 2 ** ((logs[active - 1] - bits) / active)


def gaussian_distortion(variances: NDArray[np.floating], bits: Bits) -> Bits:
    """Least mean squared error of a circular Gaussian vector at a rate [bits], summed over its principal components.

    :param variances: shape [component]
    :param bits: rate, ``math.inf`` included; or several, shape [rate]
    """
    return np.minimum.outer(np.maximum(variances, 0), water_level(variances, bits)).sum(0)


def prediction_distortion(
    x: Array,
    zx: Array,
    z: Array,
    bits: Sequence[float],
    y: Array | None = None,
    yx: Array | None = None,
    yz: Array | None = None,
) -> list[float]:
    """Least error of Z, relative to its energy, when X is coded at a rate and the decoder also has Y. Jointly Gaussian.

    :param x: E[X X^H], shape [a, a]
    :param zx: E[Z X^H], shape [c, a]
    :param z: E[Z Z^H], shape [c, c]
    :param bits: rates; ``math.inf`` for X itself
    :param y: E[Y Y^H], shape [b, b]; without it there is no side information
    :param yx: E[Y X^H], shape [b, a]
    :param yz: E[Y Z^H], shape [b, c]
    :returns: E||Z - Z^||^2 / E||Z||^2 at each rate
    """
    energy = float(np.trace(z).real)
    if y is not None and yx is not None and yz is not None:  # everything given Y
        inverse = np.linalg.pinv(y, hermitian=True)
        x, zx, z = x - yx.conj().T @ inverse @ yx, zx - yz.conj().T @ inverse @ yx, z - yz.conj().T @ inverse @ yz
    estimate = zx @ np.linalg.pinv(x, rcond=1e-9, hermitian=True) @ zx.conj().T
    floor = float(np.trace(z - estimate).real)
    variances = np.linalg.eigvalsh(estimate)
    return [(floor + gaussian_distortion(variances, rate)) / energy for rate in bits]


def linear(covariances: Covariances, bits: Sequence[float], components: int, snr_db: float | None) -> list[float]:
    """Least error of linear prediction: of a Gaussian source with these covariances, which a wandering velocity does not make.

    :param covariances: of samples; without Y in them, of a decoder without side information
    :param bits: rates; ``math.inf`` for X itself
    :param components: principal components of X and of Y that count
    :param snr_db: SNR of Y; None for Y as simulated, whose error then is a matter of ``components`` alone
    :returns: E||Z - Z^||^2 / E||Z||^2 at each rate
    """
    directions = principal(covariances.x)[1][:, :components].conj().T
    x, zx = directions @ covariances.x @ directions.conj().T, covariances.zx @ directions.conj().T
    if covariances.y is None or covariances.yx is None or covariances.zy is None:
        return prediction_distortion(x, zx, covariances.z, bits)
    variances, seen = principal(covariances.y)
    side = seen[:, :components].conj().T
    noise = 0.0 if snr_db is None else noise_variance(float(variances.sum()), len(seen), snr_db)
    y = np.diag(variances[:components] + noise).astype(complex)
    yx, yz = side @ covariances.yx @ directions.conj().T, side @ covariances.zy.conj().T
    return prediction_distortion(x, zx, covariances.z, bits, y, yx, yz)


def velocity_known(
    statistics: Statistics,
    bits: Sequence[float],
    components: int | None,
    snr_db: float | None,
    side_information: bool = True,
) -> list[float]:
    """Least error where encoder and decoder are told the velocity: the mean over velocities of the Gaussian limit at each.

    :param statistics: law of the samples
    :param bits: rates; ``math.inf`` for X itself
    :param components: principal components of X and of Y that count; None for all
    :param snr_db: SNR of Y; None for Y as simulated
    :param side_information: whether the decoder has Y
    :returns: E||Z - Z^||^2 / E||Z||^2 at each rate
    :raises ZooError: all components of a Y without noise, which tell everything
    """
    if components is None and snr_db is None and side_information:
        raise ZooError("all of a Y without noise tells Z whatever the rate; give components, or snr_db")
    downlink, uplink = (_components(maps) for maps in (statistics.downlink, statistics.uplink))
    x, y = downlink[:components], uplink[:components]
    noise = (
        0.0
        if snr_db is None
        else noise_variance(float(np.square(np.abs(uplink)).sum()), len(statistics.uplink), snr_db)
    )
    received = y @ y.conj().T + noise * np.eye(len(y))
    errors = []
    for chi in statistics.latent_correlation[:: max(1, len(statistics.latent_correlation) // VELOCITIES)]:
        faded = chi[:, None] * x.conj().T
        side = (received, y @ faded, y @ downlink.conj().T) if side_information else ()
        errors.append(
            prediction_distortion(x @ x.conj().T, downlink @ faded, downlink @ downlink.conj().T, bits, *side)
        )
    return np.mean(errors, axis=0).tolist()


def paths_known(maps: Iterable[Array], bits: Sequence[float]) -> list[float]:
    """Least error where encoder and decoder are told where the paths of a sample are, and their mean powers, but not their amplitudes: the mean
    over samples of the Gaussian limit of each.

    No code can tell its decoder the paths for nothing, so that none beats this; how near one can come is not said.

    :param maps: of samples, what each path adds to it at its mean power, complex [path, angle, delay]
    :param bits: rates
    :returns: E||X - X^||^2 / E||X||^2 of a sample at each rate, averaged
    """
    errors = []
    for paths in maps:
        variances = np.linalg.svd(paths.reshape(len(paths), -1), compute_uv=False).astype(np.float64) ** 2
        errors.append(gaussian_distortion(variances, np.asarray(bits, float)) / variances.sum())
    return np.mean(errors, axis=0).tolist()


def clusters_known(redrawn: Iterable[Array], bits: Sequence[float]) -> NDArray[np.float64]:
    """Compute the least error of Gaussian coding where a genie tells encoder and decoder the clusters of each sample for nothing.

    What is told of a sample is its covariance about zero over all paths that its clusters might have; the line of sight is a component of it,
    whose phase is not told. No code of a Gaussian source with this covariance has a lower error, so that a code that knows of a sample what
    its clusters say, and has to find out or send even that, is not expected to. But it is no bound on all codes: given the clusters a sample
    is not Gaussian, as its paths are few, and a code that makes use of where they are may pass this, as far as :func:`paths_known`.

    :param redrawn: of samples, each with its paths redrawn within its clusters, complex [redraw, angle, delay]. Of finitely many redraws
        the covariance has fewer directions than it should, and the error comes out too low: with four a cell of 32 x 32 by less than 0.1 dB
    :param bits: rates, the same for every sample
    :returns: E||X - X^||^2 / E||X||^2 of each sample over its redraws, [sample, rate]
    """
    rates, errors = np.asarray(bits, float), []
    for redraws in redrawn:
        cells = torch.from_numpy(redraws).flatten(1)
        variances = torch.linalg.eigvalsh(cells.mH @ cells / len(cells)).double().clamp(min=0).numpy()
        errors.append(gaussian_distortion(variances, rates) / variances.sum())
    return np.array(errors)


def _components(maps: Array) -> Array:
    """Maps of latents to cells [cell, L] as maps to principal components, strongest first, [component, L]."""
    _, singular, turn = np.linalg.svd(maps, full_matrices=False)
    return singular[:, None] * turn


def from_store(
    store: Store, bits: Sequence[float], *, components: int = 48, snr_db: float | None = 30.0, samples: int = SAMPLES,
    statistics: Statistics | None = None, maps: Iterable[Array] | None = None, redrawn: Iterable[Array] | None = None,
    progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Limits of a data set, by covariances of its train split and, where it is given, by its law.

    :param bits: rates
    :param components: principal components of X and of Y that count in the linear limits
    :param snr_db: SNR of Y; None for Y as simulated
    :param samples: the first so many, or all where there are fewer
    :param statistics: law of the samples, for the limit with known velocity
    :param maps: paths of some samples of X, for the limit with known paths
    :param redrawn: two or more samples of X, each with its paths redrawn, for the reference with known clusters
    :param progress: show a bar on stderr if it takes longer than a few seconds
    :returns: JSON-ready: ``rows``, each of a ``name``, ``bits`` and ``nmse_db``, and what they are of; ``genie`` with ``redrawn``: the
        ``name`` of its row, ``samples`` that it averages, and their ``standard_error_db`` at each rate
    :raises ZooError: the store cannot be read
    """
    found, count = _covariances(store, samples, progress)
    alone = Covariances(found.shape, found.x, found.z, found.zx)
    if found.y is None:
        rows = {"Gaussian, no side information": linear(alone, bits, components, None)}
    else:
        rows = {
            "linear, X alone": linear(alone, bits, components, None),
            "linear, X and Y": linear(found, bits, components, snr_db),
        }
    if statistics is not None:
        rows["velocity known"] = velocity_known(statistics, bits, None if snr_db is not None else components, snr_db)
    genie: dict[str, Any] = {}
    if redrawn is not None:
        errors = clusters_known(redrawn, bits)
        mean, deviation = errors.mean(0), errors.std(0, ddof=1) / math.sqrt(len(errors))
        rows["clusters known"] = mean.tolist()
        relative_db = (10 / math.log(10) * deviation / mean).tolist()
        genie = {"genie": {"name": "clusters known", "samples": len(errors), "standard_error_db": relative_db}}
    if maps is not None:
        rows["paths known"] = paths_known(maps, bits)
    return {
        "data": _data(store, count),
        "components": components, "side_information_snr_db": snr_db,
        "rows": [
            {"name": name, "bits": list(bits), "nmse_db": [10 * math.log10(error) for error in errors]} for name, errors in rows.items()
        ],
        **genie,
    }  # fmt: skip


def separation(distortion: Callable[[Array1], Array1], bits: Array1) -> dict[str, float]:
    """Error of a source code whose bits an ideal, capacity-achieving code brings over a fading link.

    * ``ergodic``: the channel code spans all fading states, every sample gets their mean capacity;
    * ``instantaneous``: a sample gets what its own channel carries, which the UE knows;
    * ``fixed rate``: the UE knows the law of the channels only, and chooses the best rate; a channel that carries less loses the sample.

    The ergodic error is the least of them, because the error is convex in the rate. Real codes of some hundred bits lose rate beyond
    all three, by the penalty of short blocks (Y. Polyanskiy, H. V. Poor, S. Verdu, IEEE Trans. IT 2010).

    :param distortion: rates [bits] to errors relative to the energy, 1 at rate 0, both of shape [rate]
    :param bits: capacity of each channel, as :func:`zoo.uplink.capacity_bits` gives them
    """
    ordered = np.sort(bits)
    lost = np.arange(len(ordered)) / len(ordered)  # share of the channels below each of the rates
    return {
        "ergodic": float(distortion(ordered.mean(keepdims=True))[0]),
        "instantaneous": float(distortion(ordered).mean()),
        "fixed rate": float((lost + (1 - lost) * distortion(ordered)).min()),
    }


def klt_distortion(covariances: Covariances, x: Array, rates: Iterable[int]) -> list[float]:
    """NMSE of the codec ``klt`` on samples of X, without side information.

    :param covariances: of X, that it is fitted to
    :param x: complex [n, angle, delay]
    :param rates: bits of a payload; 0 for none
    """
    errors = []
    for rate in rates:
        if rate == 0:
            errors.append(1.0)  # without any bit the estimate is 0, the mean
            continue
        codec = KLT.fit(rate, covariances)
        errors.append(nmse(x, codec.decompress(codec.compress(x))))
    return errors


def over_link(
    store: Store, channel: Channel, k: int, snr_db: Sequence[float], *, codes: Sequence[Mapping[str, Any]] = (), samples: int = SAMPLES,
    channels: int = CHANNELS, seed: int = 0, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Separation limits: X over k uses of a feedback link, see :func:`separation`.

    The Gaussian bound is by covariances of the train split, an error energy over an energy. No code of a Gaussian source with
    these covariances beats its ergodic row; one that knows more of the source than its covariances may. The KLT codes, fitted to the same
    covariances, are measured as models are, on the test split (or val, or train, where a store has no other); between two measured
    rates, multiples of ``KLT_STEP`` bits, it takes turns between both. So does any family of codecs whose results are given; beyond its
    highest rate it stays as it is.

    :param channel: of the link
    :param snr_db: of one antenna
    :param codes: results of codecs without side information on the same data, as :func:`zoo.results.read` gives them
    :param samples: that covariances are taken of
    :param channels: to average over, the same at every SNR
    :param seed: of the channels
    :param progress: show a bar on stderr if it takes longer than a few seconds
    :returns: JSON-ready: ``rows``, each of a ``name``, ``snr_db``, ``bits`` (the ergodic capacity) and ``nmse_db``; ``capacity``, each of
        a ``name``, ``snr_db`` and ``bits``; and what they are of
    :raises ZooError: the store cannot be read, the channel has fewer subcarriers, or results of other data, or of codecs that do not
        estimate X by the payload alone
    """
    from tqdm import tqdm

    measured = _by_family(codes, store)
    h = channel.sample(channels, k, torch.Generator().manual_seed(seed))
    carried = [capacity_bits(h, snr) for snr in snr_db]
    found, count = _covariances(store, samples, progress, only_x=True)
    split = next((name for name in ("test", "val") if store.sizes.get(name)), "train")
    x = store.read(split, 0, min(KLT_SAMPLES, store.sizes[split])).x.numpy()
    steps = np.concatenate(carried) / KLT_STEP
    rates = (KLT_STEP * np.unique(np.concatenate((np.floor(steps), np.ceil(steps))))).astype(int).tolist()
    with tqdm(rates, unit="code", disable=not progress, delay=3) as bar:
        errors = klt_distortion(found, x, bar)
    variances = np.linalg.eigvalsh(found.x)
    curves: dict[str, Callable[[Array1], Array1]] = {
        "Gaussian bound": lambda bits: gaussian_distortion(variances, bits) / variances.sum(),
        "KLT code": partial(_turns, rates, errors),
    }
    for family, points in measured.items():
        curves[family] = partial(_turns, list(points), list(points.values()))
    mean = [float(bits.mean()) for bits in carried]
    outages = {f"{100 * share:g} % outage": [float(np.quantile(bits, share)) for bits in carried] for share in OUTAGES}
    rows = []
    for name, curve in curves.items():
        by_snr = [separation(curve, bits) for bits in carried]
        rows += [
            {
                "name": f"{name}, {kind}", "snr_db": list(snr_db), "bits": mean,
                "nmse_db": [10 * math.log10(error[kind]) for error in by_snr],
            } for kind in by_snr[0]
        ]  # fmt: skip
    return {
        "data": _data(store, count), "klt": {"split": split, "samples": len(x)}, "link": {"k": k, "channels": channels, "seed": seed},
        "capacity": [
            {"name": name, "snr_db": list(snr_db), "bits": bits} for name, bits in {"ergodic": mean, **outages}.items()
        ],
        "rows": rows,
    }  # fmt: skip


def _by_family(codes: Sequence[Mapping[str, Any]], store: Store) -> dict[str, dict[float, float]]:
    """NMSE by bits of codecs' families, from their results; without a bit the estimate is 0."""
    found: dict[str, dict[float, float]] = {}
    for result in codes:
        if "bits" not in result or result["decoder_has_y"] or store.dataset.side_information:
            raise ZooError(f"{result['model']} is no codec of X by the payload alone; give results of such codecs")
        if result["data"]["recipe_digest"] != store.dataset.recipe_digest:
            raise ZooError(f"results of {result['model']} are of {result['data']['name']}, not of {store.dataset.name}")
        if domain(result) != "angular-delay":
            raise ZooError(
                f"results of {result['model']} are of the {domain(result)} domain; limits are of the angular-delay domain"
            )
        errors = found.setdefault(family_of(result["model"]), {0.0: 1.0})
        errors[result["bits"]] = 10 ** (result["side_information"][0]["nmse_db"] / 10)
    return {family: dict(sorted(errors.items())) for family, errors in found.items()}


def _turns(rates: Sequence[float], errors: Sequence[float], bits: Array1) -> Array1:
    """Error of a code that takes turns between measured rates."""
    return np.interp(bits, rates, errors)


def _covariances(store: Store, samples: int, progress: bool, only_x: bool = False) -> tuple[Covariances, int]:
    """Of the first samples of the train split, and of how many."""
    from tqdm import tqdm

    count = min(samples, store.sizes.get("train", 0))
    with tqdm(total=count, unit="sample", disable=not progress, delay=3) as bar:

        def counted(batch: Batch) -> Batch:
            bar.update(len(batch.x))
            return Batch(batch.x, None, batch.x) if only_x else batch

        return Covariances.of(as_arrays(counted(batch)) for batch in store.batches("train", count)), count


def _data(store: Store, count: int) -> dict[str, Any]:
    return {"name": store.dataset.name, "recipe_digest": store.dataset.recipe_digest, "samples": count}
