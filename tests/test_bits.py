"""Payload bits: every code comes back, and nothing else is taken for a payload."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.errors import ZooError
from zoo.nn.bits import pack, unpack

Case = tuple[list[int], list[list[int]]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    widths = draw(st.lists(st.integers(0, 16), min_size=1, max_size=20).filter(any))
    row = st.tuples(*(st.integers(0, 2**width - 1) for width in widths)).map(list)
    return widths, draw(st.lists(row, max_size=4))


def codes_of(case: Case) -> np.ndarray:
    return np.array(case[1], np.int64).reshape(len(case[1]), len(case[0]))


@given(cases())
def test_payload_is_the_codes_as_binary_digits_one_after_the_other(case: Case) -> None:
    widths, rows = case
    size = -(-sum(widths) // 8)
    payloads = pack(codes_of(case), widths)
    for row, payload in zip(rows, payloads, strict=True):
        digits = "".join(f"{code:0{width}b}" for code, width in zip(row, widths, strict=True) if width)
        assert payload == int(digits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


@given(cases())
def test_codes_come_back(case: Case) -> None:
    codes = codes_of(case)
    back = unpack(pack(codes, case[0]), case[0])
    assert back.dtype == np.int64
    assert back.shape == codes.shape
    assert (back == codes).all()


@given(cases().filter(lambda case: bool(case[1])), st.integers(-2, 2).filter(bool))
def test_another_length_is_refused(case: Case, change: int) -> None:
    payloads = pack(codes_of(case), case[0])
    payloads[-1] = payloads[-1][:change] if change < 0 else payloads[-1] + bytes(change)
    with pytest.raises(ZooError, match=rf"payload {len(payloads) - 1} has \d+ bytes; this code of {sum(case[0])} bits"):
        unpack(payloads, case[0])


@given(cases().filter(lambda case: bool(case[1]) and sum(case[0]) % 8 > 0))
def test_stray_bits_are_refused(case: Case) -> None:
    payloads = pack(codes_of(case), case[0])
    payloads[0] = payloads[0][:-1] + bytes([payloads[0][-1] | 1])  # the last bit of the last byte fills it up
    with pytest.raises(ZooError, match=f"bits set beyond its {sum(case[0])}"):
        unpack(payloads, case[0])


@pytest.mark.parametrize("codes", [[[4, 0]], [[-1, 0]], [[0, 0, 0]], [0, 0]])
def test_codes_that_do_not_fit_are_refused(codes: object) -> None:
    with pytest.raises(ZooError, match="do not fit 2 fields of 5 bits"):
        pack(np.array(codes, np.int64), [2, 3])
