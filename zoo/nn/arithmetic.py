"""Arithmetic coding of many samples side by side: integer probabilities in, bits out, the same on every machine.

Each sample has a stream of its own; one call codes the next symbol of all of them, or of those that take part. It is quickest where
those are the first so many, a slice. Everything is integer, so that encoder and decoder agree whatever machine they run on.

Source: I. H. Witten, R. M. Neal, J. G. Cleary, "Arithmetic coding for data compression", Communications of the ACM 1987.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TOTAL_BITS = 15  # frequencies of an alphabet add up to 2^15
TOTAL = 1 << TOTAL_BITS
REGISTER = 32
TOP, HALF, QUARTER = (1 << REGISTER) - 1, 1 << (REGISTER - 1), 1 << (REGISTER - 2)
LONGEST = 10  # binary digits behind the first of a number that is coded without an alphabet
MOST = (2 << LONGEST) - 2  # such a number

Integers = NDArray[np.int64]
Rows = Integers | slice  # samples, each once


def frequencies(weights: NDArray[np.floating]) -> Integers:
    """Integer probabilities of alphabets: at least 1 each, adding up to :data:`TOTAL`.

    :param weights: not negative, of any sum above 0, shape [..., symbol]
    """
    share = weights / weights.sum(-1, keepdims=True)
    count: Integers = 1 + np.floor(share * (TOTAL - share.shape[-1])).astype(np.int64)
    np.put_along_axis(
        count, largest := share.argmax(-1)[..., None], np.take_along_axis(count, largest, -1) + TOTAL - count.sum(-1, keepdims=True), -1
    )  # fmt: skip
    return count


def cumulative(frequency: Integers) -> Integers:
    """Where each symbol of an alphabet begins, and the end: [..., symbol] to [..., symbol + 1]."""
    return np.concatenate((np.zeros_like(frequency[..., :1]), frequency.cumsum(-1)), -1)


def number_bits(number: NDArray[np.integer]) -> Integers:
    """Bits that numbers take when they are coded without an alphabet."""
    digits = np.frexp(number + 1.0)[1].astype(np.int64) - 1
    return digits + np.minimum(digits + 1, LONGEST)


class Alphabets:
    """Some alphabets of the same size.

    :param frequency: of the symbols, as :func:`frequencies` returns them, [alphabet, symbol]
    """

    def __init__(self, frequency: Integers) -> None:
        self.starts = cumulative(frequency)
        self.usual: Integers = frequency.argmax(1)
        self._size = frequency.shape[1]
        self._sorted = (self.starts[:, :-1] + TOTAL * np.arange(len(frequency))[:, None]).ravel()
        self._low, self._high = self.starts[:, :-1].ravel(), self.starts[:, 1:].ravel()

    def bounds(self, which: Integers, symbol: Integers) -> tuple[Integers, Integers]:
        """Where symbols begin and end.

        :param which: alphabets, [m]
        :param symbol: [m]
        :returns: places out of :data:`TOTAL`, [m] each
        """
        index = which * self._size + symbol
        return self._low.take(index), self._high.take(index)

    def find(self, which: Integers, place: Integers) -> Integers:
        """The symbols that hold places.

        :param which: alphabets, [m]
        :param place: 0 ... TOTAL - 1, [m]
        :returns: symbols, [m]
        """
        found: Integers = np.searchsorted(self._sorted, which * TOTAL + place, side="right") - 1 - which * self._size
        return found


EVEN = Alphabets(np.full((1, 2), TOTAL // 2))  # a bit without a model


class Interval:
    """What encoder and decoder share: each sample's interval, and how a symbol narrows it."""

    def __init__(self, samples: int) -> None:
        self.low, self.high = np.zeros(samples, np.int64), np.full(samples, TOP)

    def share(self, rows: Rows, start: Integers, end: Integers) -> tuple[Integers, Integers]:
        """What a symbol would narrow intervals to: the least and the largest of each, [m]."""
        low = self.low[rows]
        span = self.high[rows] - low
        span += 1
        return low + (span * start >> TOTAL_BITS), low + (span * end >> TOTAL_BITS) - 1

    def narrow(self, rows: Rows, low: Integers, high: Integers) -> Integers:
        """Set intervals; which samples' intervals are to be widened."""
        self.low[rows], self.high[rows] = low, high
        # a half of the register or less is decided, or a quarter on both sides of the middle
        place = np.flatnonzero(high - low < HALF)
        return place if isinstance(rows, slice) else rows[place]

    def decided(self, rows: Integers) -> tuple[Integers, Integers]:
        """Of some samples, those whose next bit is known and those whose interval straddles the middle too narrowly."""
        low, high = self.low[rows], self.high[rows]
        known = (low ^ high) < HALF
        return rows[known], rows[~known & (low >= QUARTER) & (high < HALF + QUARTER)]

    def widen(self, rows: Integers) -> None:
        """Double the intervals of some samples, whose highest bit is known."""
        self.low[rows], self.high[rows] = self.low[rows] << 1 & TOP, self.high[rows] << 1 & TOP | 1


class Encoder(Interval):
    """Symbols to bits.

    :param samples: how many streams
    :param bits: that each may have
    """

    def __init__(self, samples: int, bits: int) -> None:
        super().__init__(samples)
        self.bits = np.zeros((samples, bits), np.int64)
        self.length, self.pending = np.zeros(samples, np.int64), np.zeros(samples, np.int64)

    def put(self, rows: Rows, start: Integers, end: Integers) -> None:
        """Code a symbol of each of some samples.

        :param rows: the samples, [m], or a slice from 0
        :param start: where the symbol begins among :data:`TOTAL`, [m]
        :param end: where it ends, [m]
        """
        wide = self.narrow(rows, *self.share(rows, start, end))
        while len(wide):
            known, narrow = self.decided(wide)
            self._emit(known, self.low[known] >> (REGISTER - 1))
            self.pending[narrow] += 1
            self.low[narrow] -= QUARTER
            self.high[narrow] -= QUARTER
            self.widen(wide := np.concatenate((known, narrow)))

    def put_number(self, rows: Integers, number: Integers) -> None:
        """Code a number, 0 to :data:`MOST`, of each of some samples by even chances, in :func:`number_bits` bits (Elias' gamma code)."""
        value = number + 1
        digits = np.frexp(value.astype(np.float64))[1] - 1
        for place in range(LONGEST):
            here = digits >= place  # how many digits follow: a 1 for each, then a 0
            self._put_bit(rows[here], (digits[here] > place).astype(np.int64))
        for place in reversed(range(LONGEST)):
            here = digits > place
            self._put_bit(rows[here], value[here] >> place & 1)

    def _put_bit(self, rows: Integers, bit: Integers) -> None:
        self.put(rows, bit * (TOTAL // 2), (bit + 1) * (TOTAL // 2))

    def finish(self) -> tuple[Integers, NDArray[np.bool_]]:
        """End all streams. A decoder takes what is behind an end for zeros.

        :returns: bits, [sample, bits]; and which streams fitted
        """
        rest = np.flatnonzero((self.low > 0) | (self.pending > 0))
        self._write(rest, np.ones(len(rest), np.int64))  # the middle of the interval; what is pending are zeros then
        return self.bits, self.length <= self.bits.shape[1]

    def _emit(self, rows: Integers, bit: Integers) -> None:
        """A bit, and the opposite as often as one is pending."""
        self._write(rows, bit)
        while len(rows := rows[pending := self.pending[rows] > 0]):
            bit = bit[pending]
            self.pending[rows] -= 1
            self._write(rows, 1 - bit)

    def _write(self, rows: Integers, bit: Integers) -> None:
        fits = self.length[rows] < self.bits.shape[1]
        self.bits[rows[fits], self.length[rows[fits]]] = bit[fits]
        self.length[rows] += 1


class Decoder(Interval):
    """Bits to symbols.

    :param bits: of each stream, [sample, bits]
    """

    def __init__(self, bits: Integers) -> None:
        super().__init__(len(bits))
        self.bits = np.concatenate((bits, np.zeros((len(bits), 1), np.int64)), 1)
        self.place = np.zeros(len(bits), np.int64)
        self.value = np.zeros(len(bits), np.int64)
        everyone = np.arange(len(bits))
        for _ in range(REGISTER):
            self._read(everyone)

    def arrange(self, order: Integers) -> None:
        """Put the samples into another order: the first is to be the one that now is at ``order[0]``, ..."""
        for name, value in vars(self).items():
            setattr(self, name, value[order])

    def get(self, rows: Rows, alphabets: Alphabets, which: Integers) -> Integers:
        """The next symbol of each of some samples.

        :param rows: the samples, [m], or a slice from 0
        :param alphabets: that the symbols may be of
        :param which: the alphabet of each, [m]
        :returns: [m]
        """
        value = self.value[rows]
        symbol = alphabets.usual.take(which)
        low, high = self.share(rows, *alphabets.bounds(which, symbol))
        other = np.flatnonzero((value < low) | (value > high))
        if len(other):
            these = other if isinstance(rows, slice) else rows[other]
            begin, span = self.low[these], self.high[these] - self.low[these] + 1
            place = (((value[other] - begin + 1) << TOTAL_BITS) - 1) // span
            symbol[other] = alphabets.find(which[other], place)
            low[other], high[other] = self.share(these, *alphabets.bounds(which[other], symbol[other]))
        wide = self.narrow(rows, low, high)
        while len(wide):
            known, narrow = self.decided(wide)
            for register in (self.low, self.high, self.value):
                register[narrow] -= QUARTER
            self.widen(wide := np.concatenate((known, narrow)))
            self._read(wide)
        return symbol

    def get_number(self, rows: Integers) -> Integers:
        """What :meth:`Encoder.put_number` has coded of each of some samples."""
        digits, going = np.zeros(len(rows), np.int64), np.arange(len(rows))
        for _ in range(LONGEST):
            going = going[self._get_bit(rows[going]) == 1]
            digits[going] += 1
        value = np.ones(len(rows), np.int64)
        for place in reversed(range(LONGEST)):
            here = np.flatnonzero(digits > place)
            value[here] = value[here] << 1 | self._get_bit(rows[here])
        return value - 1

    def _get_bit(self, rows: Integers) -> Integers:
        return self.get(rows, EVEN, np.zeros(len(rows), np.int64))

    def _read(self, rows: Integers) -> None:
        """Another bit into the register."""
        bit = self.bits[rows, np.minimum(self.place[rows], self.bits.shape[1] - 1)]
        self.place[rows] += 1
        self.value[rows] = self.value[rows] << 1 & TOP | bit
