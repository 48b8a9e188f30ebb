"""The door: what is accepted, and what each mistake is told."""

import json
import re
from abc import ABC
from dataclasses import dataclass, replace
from enum import Enum

import pytest

from pgolf.codec import Codec
from pgolf.config.schema import build
from pgolf.errors import ArtifactError, ConfigError, need
from pgolf.files.frozen import added, freeze, older, thaw


class Shape(Enum):
    LINEAR = 1
    SQRT = 2


@dataclass(frozen=True, kw_only=True)
class Part(ABC):  # noqa: B024
    pass


@dataclass(frozen=True, kw_only=True)
class Inner(Part):
    rate: float


@dataclass(frozen=True, kw_only=True)
class Outer(Part):
    bits: int
    fast: bool
    shape: Shape
    layers: tuple[int, ...]
    limit: int | None
    inner: Inner | None

    def __post_init__(self) -> None:
        need(2 <= self.bits <= 8, "quant.bits", self.bits, "between 2 and 8")


def node(**changed) -> dict:
    inner = {"_target_": f"{__name__}.Inner", "rate": 1}
    fields = {"bits": 5, "fast": True, "shape": "SQRT", "layers": [3, 4], "limit": None, "inner": inner}
    return {"_target_": f"{__name__}.Outer"} | fields | changed


def test_a_node_becomes_a_frozen_component():
    assert build(node(), Part, "quant") == Outer(
        bits=5, fast=True, shape=Shape.SQRT, layers=(3, 4), limit=None, inner=Inner(rate=1.0)
    )
    assert build(node(inner=None), Part, "quant").inner is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bits": "five"}, "quant.bits='five': Value 'five' of type 'str' could not be converted to Integer"),
        ({"bits": 5.5}, "quant.bits=5.5: Value '5.5' of type 'float' could not be converted to Integer"),
        ({"bits": 9}, "quant.bits=9: must be between 2 and 8"),
        ({"bits": None}, "quant.bits=None: "),
        ({"bits": "???"}, "quant.bits='???': is missing and must be given"),
        ({"bist": 5}, "Did you mean 'bits'?"),
        ({"fast": "yes"}, "quant.fast='yes': must be true or false"),
        ({"shape": "CUBE"}, "quant.shape='CUBE': must be one of LINEAR, SQRT"),
        ({"layers": ["a"]}, "quant.layers=['a']: "),
        ({"inner": {"_target_": f"{__name__}.Inner", "rate": "x"}}, "quant.inner.rate='x': "),
        ({"inner": {"_target_": f"{__name__}.Inner", "rate": float("nan")}}, "must be a finite number"),
        ({"inner": {"_target_": f"{__name__}.Iner", "rate": 1}}, f"Did you mean '{__name__}.Inner'?"),
        ({"inner": {"_target_": f"{__name__}.Part"}}, "quant.inner._target_="),
        ({"inner": 3}, "quant.inner=3: must be a component"),
        ({"_target_": "os.system"}, "quant._target_='os.system': is no concrete dataclass below"),
        ({"_target_": "os.sistem"}, "quant._target_='os.sistem': has no such class; must name one of: "),
        ({"_target_": "nowhere.Outer"}, f"has no such class; must name one of: {__name__}.Inner"),
        ({"_target_": "tests.small.Outer"}, f"Did you mean '{__name__}.Outer'?"),
        ({"_target_": None}, "quant._target_="),
    ],
)
def test_each_mistake_is_told_once_with_its_key(changed, told):
    with pytest.raises(ConfigError) as wrong:
        build(node(**changed), Part, "quant")
    assert told in str(wrong.value)


OUTER = Outer(bits=5, fast=True, shape=Shape.SQRT, layers=(3, 4), limit=None, inner=Inner(rate=1.0))
FROZEN = {
    "_target_": "Outer",
    "bits": 5,
    "fast": True,
    "shape": "SQRT",
    "layers": [3, 4],
    "limit": None,
    "inner": {"_target_": "Inner", "rate": 1.0},
}


def test_what_is_frozen_thaws_to_the_same():
    assert freeze(OUTER) == FROZEN
    assert thaw(json.loads(json.dumps(FROZEN)), Part) == OUTER
    assert thaw(FROZEN, Outer) == OUTER
    assert thaw(freeze(replace(OUTER, inner=None)), Part).inner is None


def test_dotted_words_of_earlier_files_count_by_their_last_part():
    inner = {"_target_": "somewhere.else.Inner", "rate": 1.0}
    assert thaw(FROZEN | {"_target_": "pgolf.model.Outer", "inner": inner}, Part) == OUTER


@pytest.mark.parametrize(
    ("frozen", "base", "told"),
    [
        (3, Part, "meta: 3 does not describe a Part"),
        (None, Part, "meta: None does not describe a Part"),
        ({}, Part, "meta: 'None' is no Part that is known here (Inner, Later, Outer, Part)"),
        ({"_target_": "os.system"}, Part, "meta: 'system' is no Part"),
        ({"_target_": "Shape"}, Part, "meta: 'Shape' is no Part"),
        ({"_target_": ["Inner"], "rate": 1.0}, Part, "is no Part"),
        (FROZEN, Inner, "meta: 'Outer' is no Inner that is known here (Inner)"),
        (FROZEN | {"inner": FROZEN}, Part, "meta: 'Outer' is no Inner"),
        (FROZEN | {"colour": 1, "a": 2}, Part, "meta: Outer has no a, colour; a later version wrote this"),
        ({k: v for k, v in FROZEN.items() if k != "bits"}, Part, "meta: Outer lacks bits"),
        (FROZEN | {"bits": 9}, Part, "meta: Outer: quant.bits=9: must be between 2 and 8"),
        (FROZEN | {"bits": "five"}, Part, "meta: Outer: "),
        (FROZEN | {"bits": None}, Part, "meta: Outer: "),
        (FROZEN | {"shape": "CUBE"}, Part, "meta: Outer: 'CUBE'"),
    ],
)
def test_what_describes_no_such_component_is_refused(frozen, base, told):
    with pytest.raises(ArtifactError, match=re.escape(told)):
        thaw(frozen, base)


def test_an_abstract_class_is_no_component():
    with pytest.raises(ArtifactError, match=r"^meta: .*Codec"):
        thaw({"_target_": "Codec"}, Codec)


@dataclass(frozen=True, kw_only=True)
class Later(Part):
    """One that got a field after files had been written."""

    old: int
    new: int | None = added(None)
    shape: Shape = added("SQRT")


def test_fields_that_were_added_have_a_meaning_in_earlier_files_but_none_in_configs():
    assert thaw(older({"_target_": "Later", "old": 1}, Part), Part) == Later(old=1, new=None, shape=Shape.SQRT)
    now = Later(old=1, new=2, shape=Shape.LINEAR)
    assert thaw(freeze(now), Part) == now
    with pytest.raises(TypeError):
        Later(old=1)
    with pytest.raises(ConfigError, match=r"quant\.new='\?\?\?': is missing"):
        build({"_target_": f"{__name__}.Later", "old": 1, "shape": "SQRT"}, Part, "quant")


def test_a_missing_field_is_named():
    part = node()
    del part["limit"]
    with pytest.raises(ConfigError, match=r"quant.limit='\?\?\?': is missing"):
        build(part, Part, "quant")
