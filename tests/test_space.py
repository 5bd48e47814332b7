"""Do points of the unit cube and designs agree both ways, and are mistakes in a study's ranges all told?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dse.catalog import load_catalog
from dse.catalog.silicon import build_range
from dse.chips import FAMILIES
from dse.chips.common import Family
from dse.errors import InputError
from dse.space import Space, Variable, design_id, space_of, take
from dse.types import Link

RECORDS = load_catalog().records["families"]
FOUR = Space(
    "toy",
    (
        Variable("real", 2.0, 4.0),
        Variable("log", 1.0, 1000.0, log=True),
        Variable("int", 1.0, 3.0, kind="int"),
        Variable("choice", kind="choice", choices=("a", "b", "c"), allowed=("c", "a")),
    ),
)


@given(arrays(float, (7, 4), elements=st.floats(0, 1)))
def test_decode_stays_inside_and_encode_brings_it_back(cube):
    values = FOUR.decode(cube)
    assert np.all((values["real"] >= 2) & (values["real"] <= 4))
    assert np.all((values["log"] >= 1) & (values["log"] <= 1000))
    assert set(values["int"]) <= {1.0, 2.0, 3.0}
    assert set(values["choice"]) <= {0.0, 2.0}
    again = FOUR.decode(FOUR.encode(values))
    for name, value in values.items():
        np.testing.assert_allclose(again[name], value, rtol=1e-12)
    np.testing.assert_allclose(FOUR.encode(values)[:, :2], cube[:, :2], atol=1e-9)


def test_whole_numbers_and_choices_get_equal_shares_of_the_cube():
    values = FOUR.decode(np.tile(np.linspace(0, 1, 6000, endpoint=False)[:, None], (1, 4)))
    assert {value: int(np.sum(values["int"] == value)) for value in (1.0, 2.0, 3.0)} == {1.0: 2000, 2.0: 2000, 3.0: 2000}
    assert [int(np.sum(values["choice"] == position)) for position in (0, 1, 2)] == [3000, 0, 3000]
    assert FOUR.decode(np.ones((1, 4)))["int"][0] == 3


def test_a_design_written_with_names_and_back():
    design = {"real": 3.0, "log": 10.0, "int": 2, "choice": "c"}
    values = FOUR.from_named(design)
    assert FOUR.named(values) == design
    assert FOUR.named(FOUR.decode(FOUR.encode(values)))["choice"] == "c"
    assert FOUR.from_named({})["choice"] == 2.0  # the first allowed


def test_ids_depend_on_decisions_and_family_only():
    values = FOUR.decode(np.random.default_rng(0).random((50, 4)))
    ids = FOUR.ids(values)
    assert len(set(ids)) == 50
    assert ids[7] == design_id("toy", FOUR.named(values, 7))
    assert ids[7] != design_id("other", FOUR.named(values, 7))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_range_for_every_variable(name):
    bounds = build_range(RECORDS[name])
    family = FAMILIES[name]
    assert set(bounds) == {variable.name for variable in family.variables}
    space = space_of(family, bounds)
    defaults = space.defaults()
    for variable in space.variables:
        if variable.kind == "choice":
            assert variable.names and set(variable.names) <= set(variable.choices)
        else:
            assert variable.low < variable.high
            assert variable.low <= defaults[variable.name] <= variable.high
    assert space["node"].names[0] in ("n5", "n6")


def test_a_study_fixes_narrows_and_widens():
    family, bounds = FAMILIES["hbm_gpu"], build_range(RECORDS["hbm_gpu"])
    space = space_of(family, bounds, {"dies": 1, "voltage_v": [0.6, 0.7], "node": "n3", "memory": ["hbm4"], "stacks": {"high": 4}})
    values = space.decode(np.random.default_rng(1).random((20, space.dimension)))
    assert set(values["dies"]) == {1.0}
    assert np.all((values["voltage_v"] >= 0.6) & (values["voltage_v"] <= 0.7))
    assert {space.named(values, i)["node"] for i in range(20)} == {"n3"}
    assert set(values["stacks"]) <= {1.0, 2.0, 3.0, 4.0}
    assert space["dies"].size == 1 and space["node"].size == 1
    assert np.all(np.isfinite(space.encode(values)))


def test_all_mistakes_of_a_study_are_told():
    family, bounds = FAMILIES["sram"], build_range(RECORDS["sram"])
    wrong = {"die_aera_mm2": 800, "node": ["n5", "n9"], "dies": [4, 1], "bank_byte": "big"}
    with pytest.raises(InputError) as error:
        space_of(family, bounds, wrong)
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 4
    assert "did you mean 'die_area_mm2'?" in text and "n9" in text and "4 to 1" in text and "'big'" in text
    with pytest.raises(InputError) as error:
        FOUR.from_named({"rael": 3.0, "int": 1.5, "choice": "d"})
    assert len(error.value.problems) == 3
    with pytest.raises(InputError):
        FOUR.decode(np.zeros((3, 5)))


def test_a_variable_without_a_default_starts_in_the_middle():
    space = space_of(Family("toy", FOUR.variables, lambda *_: None), {})  # type: ignore[arg-type, return-value]
    assert space.defaults() == pytest.approx({"real": 3.0, "log": 1000**0.5, "int": 2.0, "choice": 2.0})


def test_take_stacks_pytrees_by_index():
    links = [Link(chips=8.0, s_per_byte=1.0, j_per_byte=2.0), Link(chips=72.0, s_per_byte=3.0, j_per_byte=4.0)]
    assert take(links, [1, 0, 1]).chips.tolist() == [72.0, 8.0, 72.0]
    assert float(take(links, 0).j_per_byte) == 2.0
