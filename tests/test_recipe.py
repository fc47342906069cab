"""Recipes: the paper's defaults, strict parsing, canonical digests."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datagen.errors import DatagenError
from datagen.recipe import CDLRecipe, canonical_digest, load, parse


def test_defaults_are_the_papers_set() -> None:
    recipe = CDLRecipe()
    assert recipe.splits == {"train": 100_000, "val": 10_000, "test": 20_000}
    assert recipe.arrays == {"X": (32, 32), "Y": (32, 32), "Z": (32, 32)}
    assert recipe.horizon_s == pytest.approx(5e-3)  # 70 OFDM symbols of 1/14 ms
    assert recipe.label == "cdl-c-fdd-v1"


def test_horizon_follows_the_subcarrier_spacing() -> None:
    assert CDLRecipe(spacing_khz=30.0).horizon_s == pytest.approx(2.5e-3)
    assert CDLRecipe(slots=1).horizon_s == 0


def test_one_slot_has_no_separate_target() -> None:
    assert list(CDLRecipe(slots=1).arrays) == ["X", "Y"]


def test_name_follows_the_model_unless_given() -> None:
    assert CDLRecipe(model="A").name == "cdl-a-fdd"
    assert CDLRecipe(model="A", name="mine").name == "mine"


def test_equal_recipes_have_equal_digests_whatever_the_spelling() -> None:
    written = parse(tomllib.loads("speed_mps = 5\ndelay_spread_ns = 300\ntrain = 100000"))
    assert written == CDLRecipe()
    assert written.digest == CDLRecipe().digest
    assert written.digest != CDLRecipe(seed=1).digest


def test_digest_is_of_canonical_json() -> None:
    assert canonical_digest({"b": 1, "a": [1.5]}) == canonical_digest(json.loads('{ "a":[1.5], "b":1 }'))
    assert canonical_digest({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"slots": 0}, "slots = 0"),
        ({"slots": 10**26}, "slots = "),
        ({"speed_mps": 10**400}, "speed_mps"),
        ({"speed_mps": 1e300}, "less than or equal to 10000"),
        ({"speed_mps": -1.0}, "greater than or equal to 0"),
        ({"speed_mps": [9.0, 3.0]}, "runs backwards"),
        ({"speed_mps": [1.0, 2.0, 3.0]}, "speed_mps"),
        ({"crop_taps": 700}, "more than the 667 subcarriers; give at most 667"),
        ({"delay_spread_ns": 0.0}, "greater than 0"),
        ({"delay_spread_ns": float("nan")}, "finite"),
        ({"uplink": "magic"}, "'comb', 'independent-phases' or 'same-coefficients'"),
        ({"model": "F"}, "'A', 'B', 'C', 'D' or 'E'"),
        ({"delay_spred_ns": 300.0}, "did you mean 'delay_spread_ns'?"),
        ({"zzz": 1}, "allowed: scenario, name"),
        ({"train": "many"}, "valid integer"),
        ({"train": True}, "valid integer"),
        ({"train": 0, "val": 0, "test": 0}, "give at least one of them samples"),
        ({"seed": 2**64}, "less than"),
        ({"name": "../evil"}, "name"),
        ({"scenario": "umi"}, "unknown scenario 'umi'; allowed: cdl"),
        ({"scenario": 3}, "unknown scenario"),
    ],
)
def test_bad_fields_are_refused_in_one_line(fields: dict[str, object], words: str) -> None:
    with pytest.raises(DatagenError) as caught:
        parse(fields)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(list(CDLRecipe.model_fields)) | st.text(), json_values, max_size=6) | json_values
)
def test_parsing_anything_gives_a_recipe_or_one_line(data: object) -> None:
    try:
        recipe = parse(data)
    except DatagenError as refused:
        message = str(refused)
    else:
        message = ""
        assert parse(json.loads(recipe.model_dump_json())) == recipe
    assert "\n" not in message


@given(
    st.builds(
        dict,
        model=st.sampled_from("ABCDE"),
        seed=st.integers(0, 2**64 - 1),
        speed_mps=st.floats(0, 1e3),
        subcarriers=st.integers(32, 4096),
        antennas=st.integers(1, 64),
        uplink=st.sampled_from(["comb", "independent-phases", "same-coefficients"]),
    )
)
def test_recipes_survive_json(fields: dict[str, object]) -> None:
    recipe = parse(fields)
    again = parse(json.loads(recipe.model_dump_json()))
    assert again == recipe
    assert again.digest == recipe.digest


def test_recipe_files(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('model = "D"\nspeed_mps = [0.0, 30.0]\n')
    assert parse(load(file)) == CDLRecipe(model="D", speed_mps=(0.0, 30.0))
    file.write_text("model = \n")
    with pytest.raises(DatagenError, match="is not TOML"):
        load(file)
    for text in ("x = " + "1" * 5000, "x = " + "[" * 5000):
        file.write_text(text)
        with pytest.raises(DatagenError, match="is not TOML"):
            load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DatagenError, match="is not TOML"):
        load(file)
    with pytest.raises(DatagenError, match="cannot read the recipe"):
        load(tmp_path / "absent.toml")
