"""Arithmetic coding: what goes in comes out, in as many bits as the probabilities say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zoo.nn.arithmetic import MOST, TOTAL, Alphabets, Decoder, Encoder, cumulative, frequencies, number_bits

SAMPLES, SYMBOLS, ALPHABET = 60, 200, 9
Streams = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="module")
def streams() -> Streams:
    """Some symbols of each sample, from alphabets that are far from even, and who takes part in each."""
    random = np.random.default_rng(0)
    frequency = frequencies(random.dirichlet(np.full(ALPHABET, 0.2), 5))
    context = random.integers(0, 5, (SYMBOLS, SAMPLES))
    drawn = [[random.choice(ALPHABET, p=frequency[c] / TOTAL) for c in row] for row in context]
    return frequency, context, np.array(drawn), random.random((SYMBOLS, SAMPLES)) < 0.5


def encoded(streams: Streams, bits: int) -> tuple[Encoder, NDArray[np.int64], NDArray[np.bool_]]:
    frequency, context, symbol, taking_part = streams
    starts, encoder = cumulative(frequency), Encoder(SAMPLES, bits)
    for c, s, here in zip(context, symbol, taking_part, strict=True):
        rows = np.flatnonzero(here)
        encoder.put(rows, starts[c[rows], s[rows]], starts[c[rows], s[rows] + 1])
    written, fits = encoder.finish()
    return encoder, written, fits


def test_decoder_finds_what_encoder_was_given(streams: Streams) -> None:
    frequency, context, symbol, taking_part = streams
    _, bits, fits = encoded(streams, 600)
    assert fits.all()
    decoder, alphabets = Decoder(bits), Alphabets(frequency)
    for c, s, here in zip(context, symbol, taking_part, strict=True):
        rows = np.flatnonzero(here)
        assert (decoder.get(rows, alphabets, c[rows]) == s[rows]).all()


def test_length_is_that_of_the_probabilities(streams: Streams) -> None:
    frequency, context, symbol, taking_part = streams
    encoder, bits, _ = encoded(streams, 600)
    ideal = np.where(taking_part, -np.log2(frequency[context, symbol] / TOTAL), 0).sum(0)
    assert (encoder.length <= ideal + 1).all()
    for row, length in zip(bits, encoder.length, strict=True):
        assert not row[length:].any()
    assert encoder.length.mean() > ideal.mean() - 2


def test_says_which_streams_do_not_fit(streams: Streams) -> None:
    encoder, _, fits = encoded(streams, 150)
    assert (fits == (encoder.length <= 150)).all()
    assert 0 < fits.sum() < SAMPLES


def test_frequencies_of_any_weights_add_up_and_leave_nothing_out() -> None:
    weights = np.array([[0, 0, 1], [1e-12, 5, 1e12], [1, 1, 1]])
    frequency = frequencies(weights)
    assert (frequency.sum(-1) == TOTAL).all()
    assert (frequency > 0).all()
    assert frequency[0].argmax() == 2


def test_a_stream_of_certainties_takes_no_bit() -> None:
    encoder = Encoder(1, 4)
    for _ in range(1000):
        encoder.put(np.array([0]), np.array([0]), np.array([TOTAL]))
    bits, fits = encoder.finish()
    assert fits.all()
    assert not encoder.length.any()
    assert not bits.any()


def test_numbers_of_any_size_come_back() -> None:
    numbers = np.array([0, 1, 2, 3, 6, 7, 100, MOST - 1, MOST])
    rows = np.arange(len(numbers))
    encoder = Encoder(len(numbers), 64)
    for _ in range(2):
        encoder.put_number(rows, numbers)
    bits, fits = encoder.finish()
    assert fits.all()
    assert (encoder.length <= 2 * number_bits(numbers)).all()
    decoder = Decoder(bits)
    for _ in range(2):
        assert (decoder.get_number(rows) == numbers).all()
    assert number_bits(np.array([0, 1, 2, MOST])).tolist() == [1, 3, 3, 20]
