"""Checks that an exported file does without: they were made before, and what a program does stays the same."""

import ast
import textwrap

import pytest

from pgolf.export.checks import unchecked

ABSTRACT = """
class Base(ABC):
    @abstractmethod
    def f(self): pass
    @property
    @abc.abstractmethod
    def g(self): pass
    def h(self): return 1
"""


def tidy(text: str) -> str:
    return ast.unparse(ast.parse(textwrap.dedent(text)))


def checked(text: str, *components: str) -> str:
    return unchecked(textwrap.dedent(text), components)


def holder(name: str, field: str = "x: int", base: str = "") -> str:
    """A class whose `__post_init__` only checks."""
    return f"@dataclass\nclass {name}{base}:\n    {field}\n    def __post_init__(self): need(self.x, '{name}')\n"


def who_checks(source: str, *components: str) -> list[str]:
    """The classes that have a `__post_init__` afterwards."""
    tree = ast.parse(unchecked(source, components))
    return [c.name for c in tree.body if "__post_init__" in ast.unparse(c)]


def test_components_their_bases_and_what_their_fields_hold_have_been_checked():
    source = (
        holder("Base")
        + holder("Held")
        + holder("Deep")
        + holder("Between", "x: tuple[Deep, ...]")
        + holder("Part", "x: Held | None", "(Base)")
        + holder("Other", "x: Between")
        + holder("Below", base="(Part)")
    )
    assert who_checks(source) == ["Base", "Held", "Deep", "Between", "Part", "Other", "Below"]
    assert who_checks(source, "Part") == ["Deep", "Between", "Other", "Below"]
    assert who_checks(source, "Other") == ["Base", "Held", "Part", "Below"]
    assert who_checks(source, "Below", "Other", "NotHere") == []


def test_a_class_that_holds_itself_is_followed_once():
    assert who_checks(holder("A", "x: B | None") + holder("B", "x: A"), "A") == []


def test_what_sets_something_stays():
    source = """
    class A:
        x: int
        def __post_init__(self):
            need(self.x > 1, 'x')
            object.__setattr__(self, 'y', self.x)
    """
    assert checked(source, "A") == tidy(source)


def test_other_methods_and_functions_stay():
    source = """
    def __post_init__(self): need(self)
    class A:
        x: int
        def check(self): need(self.x)
    """
    assert checked(source, "A") == tidy(source)


def test_components_keep_the_types_by_which_they_are_thawed():
    """Numbers are taken as they are; a component, an enum, text and tuples are looked at."""
    kept = "    y: Shape | None = None\n    name: str = ''\n    sizes: tuple[int, ...] = ()"
    source = f"@dataclass(frozen=True)\nclass A:\n    x: int\n    z: float | None\n    on: bool\n{kept}"
    less = f"@dataclass(frozen=True)\nclass A:\n    x: 0\n    z: 0\n    on: 0\n{kept}"
    assert unchecked(source, ["A"]) == less


def test_a_class_that_is_empty_then_has_a_body():
    assert checked("class A:\n    def __post_init__(self): need(self.x)", "A") == tidy("class A: pass")


def test_abstract_methods_go():
    assert checked(ABSTRACT) == tidy("""
    class Base:
        def h(self): return 1
    """)
    assert checked(ABSTRACT.replace("ABC", "ABC, Other")) == tidy("class Base(Other):\n    def h(self): return 1")


def test_what_is_asked_of_super_stays_and_so_does_the_base_that_it_needs():
    source = ABSTRACT + "class Part(Base):\n    def f(self): return super().f()\n"
    assert checked(source) == tidy("""
    class Base(ABC):
        @abstractmethod
        def f(self): pass
        def h(self): return 1
    class Part(Base):
        def f(self): return super().f()
    """)


def test_fields_of_other_dataclasses_have_no_types():
    source = """
    @dataclass(frozen=True)
    class A:
        x: Shape
        y: tuple[int, ...] = ()
        method: ClassVar[str] = 'm'
        z: InitVar[int] = 3
        _: KW_ONLY
        k: int = field(default=1)
    @dataclasses.dataclass
    class B:
        x: Shape
    class Plain:
        x: Shape
    """
    assert checked(source) == tidy("""
    @dataclass(frozen=True)
    class A:
        x: 0
        y: 0 = ()
        method: ClassVar[str] = 'm'
        z: InitVar[int] = 3
        _: KW_ONLY
        k: 0 = field(default=1)
    @dataclasses.dataclass
    class B:
        x: 0
    class Plain:
        x: Shape
    """)


PROGRAM = """
from abc import ABC, abstractmethod
from dataclasses import InitVar, astuple, dataclass, fields
from typing import ClassVar, get_type_hints

@dataclass(frozen=True, kw_only=True)
class Base(ABC):
    kind: ClassVar[str] = "base"
    x: int
    @abstractmethod
    def told(self): return "base"
    @abstractmethod
    def size(self): pass
    def __post_init__(self):
        if self.x < 0: raise ValueError

@dataclass(frozen=True, kw_only=True)
class Part(Base):
    kind: ClassVar[str] = "part"
    y: float | None = None
    def told(self): return super().told() + self.kind
    def size(self): return self.x

@dataclass
class Other:
    kind: ClassVar[str] = "other"
    x: int
    z: list[int]
    twice: InitVar[int] = 2
    def __post_init__(self, twice): self.x *= twice

part, other = Part(x=1), Other(3, [4])
FOUND = (part, part.told(), part.size(), astuple(other), [f.name for f in fields(other)], other.kind)
FOUND += (sorted(get_type_hints(Part)),)
"""


def test_a_program_does_the_same():
    found = []
    for source in (PROGRAM, unchecked(PROGRAM, ["Part"])):
        names: dict = {"__name__": "program"}
        exec(source, names)
        found.append(repr(names["FOUND"]))
    assert found[0] == found[1]


@pytest.mark.parametrize("example", ["class A:\n  x: int\n  def __post_init__(self): need(self.x > 0)"])
def test_the_example_of_the_docstring(example):
    assert unchecked(example, ["A"]) == "class A:\n    x: int"
