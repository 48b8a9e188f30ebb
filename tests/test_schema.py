"""The door: what is accepted, and what each mistake is told."""

from abc import ABC
from dataclasses import dataclass
from enum import Enum

import pytest

from pgolf.errors import ConfigError, need
from pgolf.frozen import freeze, thaw
from pgolf.schema import build


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
        ({"shape": "CUBE"}, "quant.shape='CUBE': Invalid value 'CUBE', expected one of [LINEAR, SQRT]"),
        ({"layers": ["a"]}, "quant.layers=['a']: "),
        ({"inner": {"_target_": f"{__name__}.Inner", "rate": "x"}}, "quant.inner.rate='x': "),
        ({"inner": {"_target_": f"{__name__}.Inner", "rate": float("nan")}}, "must be a finite number"),
        ({"inner": {"_target_": f"{__name__}.Iner", "rate": 1}}, "Did you mean 'Inner'?"),
        ({"inner": {"_target_": f"{__name__}.Part"}}, "quant.inner._target_="),
        ({"inner": 3}, "quant.inner=3: must be a component"),
        ({"_target_": "os.system"}, "quant._target_='os.system': must name one of: "),
        ({"_target_": None}, "quant._target_="),
    ],
)
def test_each_mistake_is_told_once_with_its_key(changed, told):
    with pytest.raises(ConfigError) as wrong:
        build(node(**changed), Part, "quant")
    assert told in str(wrong.value)


def test_what_is_frozen_thaws_to_the_same():
    from pgolf.seed import Seed

    seed = Seed(value=3, model=4, loader=5)
    assert freeze(seed) == {"_target_": "pgolf.seed.Seed", "value": 3, "model": 4, "loader": 5}
    assert thaw(freeze(seed)) == seed


def test_a_missing_field_is_named():
    part = node()
    del part["limit"]
    with pytest.raises(ConfigError, match=r"quant.limit='\?\?\?': is missing"):
        build(part, Part, "quant")
