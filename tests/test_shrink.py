"""Shrinking: words and checks go, names get short, and what a program does stays the same."""

import ast
import concurrent.futures
import contextlib
import datetime
import enum
import hashlib
import io
import pathlib
import queue
import re
import struct
import subprocess
import sys
import textwrap
import threading
from collections import deque

import numpy as np
import pytest
import sentencepiece
import torch

import pgolf
from pgolf.export.members import defined, shorten
from pgolf.export.rename import Named, rename
from pgolf.export.scopes import FOREIGN
from pgolf.export.shrink import minified, quiet, unguarded


@pytest.mark.parametrize(
    ("source", "shrunk"),
    [
        ("raise E(f'{x} is small')", "raise E"),
        ("raise E('some words')", "raise E"),
        ("raise E('C3', f'{x}', 'some words')", "raise E('C3', '', '')"),
        ("raise E(f(x), key=1)", "raise E('', key=1)"),
        ("raise", "raise"),
        ("class A(ABC):\n  @property\n  @abstractmethod\n  def f(self): ...", "class A:\n    pass"),
        ("def f():\n    need(x, 'a')", "def f():\n    pass"),
        ("def f(self):\n    self.journal.event('a', b=1)", "def f(self):\n    pass"),
        ("@d\nclass A:\n  x: Y[int]\n  y: ClassVar[int] = 1", "@d\nclass A:\n    x: 0\n    y: ClassVar[int] = 1"),
        ("class A:\n  x: int\n  y: int = 1", "class A:\n    y: 0 = 1"),
        ("class A(NamedTuple):\n  x: int", "class A(NamedTuple):\n    x: 0"),
        ("f(zip(x, y, strict=True), strict=True)", "f(zip(x, y), strict=True)"),
        ("if a:\n  raise B", "if a:\n    raise B"),
        ("if a:\n  x = 1\n  raise ConfigError(x)", "pass"),
        ("if a:\n  raise ConfigError(x)\nelse:\n  b()", "if a:\n    raise ConfigError(x)\nelse:\n    b()"),
    ],
)
def test_quiet(source, shrunk):
    assert quiet(source, []) == shrunk


def test_components_have_been_checked_and_keep_the_types_of_words():
    source = """
    @dataclass(frozen=True, kw_only=True)
    class Base:
        def __post_init__(self): check(self.z)
        z: int
    @dataclass
    class A(Base):
        x: int
        y: int
        def __post_init__(self): check(self.x > 1)
    @dataclass
    class B:
        x: int
        def __post_init__(self): check(self.x > 1)
    @dataclass
    class C(Base):
        def __post_init__(self): object.__setattr__(self, "y", 1)
    """
    found = quiet(textwrap.dedent(source), ["A", "C"], typed=["x", "z"])
    assert found.count("check") == 1, "B is no component"
    assert found.count("x: int") == 1
    assert "z: int" in found
    assert "y: 0" in found
    assert "__setattr__" in found
    assert "@dataclass(frozen=True)\n" in found


def test_trusted_files_need_no_guards():
    guard = "if x:\n    y = 1\n    raise A"
    source = f"def f(x):\n  {guard}\ndef g(x):\n  for x in y:\n   {guard}\n  if x:\n    return 1\n  raise B"
    wanted = "def f(x): pass\ndef g(x):\n  if x:\n    return 1\n  raise B"
    assert unguarded(source) == ast.unparse(ast.parse(wanted))


@pytest.mark.parametrize(
    ("use", "kept"),
    [
        ("f(1, 2)", ""),
        ("f(1, b=2)", "b"),
        ("f(**{'a': 1, 'b': 2})", "ab"),
        ("f(**x)", "xb"),
        ("np.zeros(1, a=2, b=3)", ""),
        ("dict(a=1)", ""),
        ("unknown(1, a=2)", "a"),
        ("other(1, a=2)", ""),
        ("K(a=1)", ""),
        ("x.f(a=1)", "a"),
        ("x.held(a=1)", "a"),
        ("K.method(a=1)", ""),
        ("partial(f, b=1)", "b"),
        ("partial(x.method, b=1)", "b"),
        ("partial(g, b=1)", ""),
    ],
)
def test_parameters_that_a_call_may_name_keep_their_names(use, kept):
    tree = ast.parse(
        "import numpy as np\nfrom functools import partial\ndef f(a, b): return a + b\ndef other(a): pass\n"
        "class K:\n  def method(self): self.held = f\n  def __init__(self, a): pass\n" + use + "\nx = 'b'"
    )
    named = Named(tree)
    assert {p for p in "ab" if named.may_name("f", p)} == set(kept) & {"a", "b"}


def test_a_class_is_called_by_the_names_of_its_parameters():
    named = Named(ast.parse("class K:\n  def __init__(self, a, b): pass\n  def f(self, a): pass\nK(a=1)"))
    assert named.may_name("__init__", "a")
    assert not named.may_name("__init__", "b")
    assert not named.may_name("f", "a")


PROGRAM = """
import sys
from dataclasses import dataclass, replace
from enum import Enum
class Kind(Enum):
    LEFT = 1
@dataclass(frozen=True, kw_only=True)
class Point:
    left: float
    right: float
    label: str = "p"
    def moved(self, distance, factor=1.0):
        return replace(self, left=self.left + distance * factor)
    @property
    def width(self): return self.right - self.left
    def _hidden(self, total): return [total + part for part in (self.left, self.right)]
class Counter:
    def __init__(self, start): self.count, self.steps = start, []
    def advance(self, amount=1):
        def twice(value):
            nonlocal amount
            amount += value
            return amount
        self.steps.append(twice(amount))
        return self
class Book(dict):
    def __missing__(self, key): return key
    def page(self): return self["page"]
def total(points, scale, *more, **named):
    try:
        return sum(point.left * scale + point.right for point in points) + len(more) + named["extra"] / 0
    except ZeroDivisionError as error:
        return str(error), [scale for scale in more], {name: value for name, value in named.items()}
point = Point(left=1.0, right=2.0)
print(point.moved(3.0, factor=2.0), point.width, point._hidden(1), Kind.LEFT.name, Kind.LEFT)
print(total([point], 10, 1, 2, extra=1), Counter(2).advance().advance(amount=4).steps, Book().page())
print((lambda scale, point=point: scale * point.left)(3), getattr(point, "label"), "width", sys.argv[1:])
"""


KEPT = ("Point", "Kind")  # objects of these are printed


@pytest.mark.parametrize(
    "small",
    [
        shorten,
        lambda text: rename(text, KEPT),
        lambda text: minified(text, KEPT),
        lambda text: minified(shorten(text), KEPT),
    ],
)
def test_a_program_does_the_same(small):
    def said(text):
        return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout

    assert said(small(PROGRAM)) == said(PROGRAM)


def test_local_names_are_given_out_in_order_and_attributes_that_are_ours_get_short():
    assert rename("def double(number): return 2 * number\nprint(double(1))") == (
        "def A(a):\n    return 2 * a\nprint(A(1))"
    )
    assert "def a(self)" in shorten("class A:\n  def double(self): pass\nA().double()")


@pytest.mark.parametrize(
    "also",
    [
        "x = 'double'",
        "f(double=1)",
        "a.double = 1",
        "class B(Module):\n  def double(self): pass",
        "class B(Module):\n  def f(self): self.double = 1",
        "class B(NamedTuple):\n  double: int",
        "class B:\n  double: int\nclass C(B):\n  x: int\nC(**given)",
    ],
)
def test_attributes_that_others_may_ask_for_keep_their_names(also):
    source = f"class A:\n  def double(self): pass\n{also}\nA().double()"
    assert "A().double()" in shorten(source)
    assert "A().double()" in shorten("class A:\n  def double(self): pass\nA().double()", ["double"])


def test_attributes_of_other_libraries_keep_their_names():
    """Everything that a class of the package defines and an object from elsewhere has too is on the list."""
    elsewhere = [
        *(torch.Tensor, torch.nn.Module, torch.nn.Parameter, torch.optim.AdamW, torch.distributed.Work, torch.Size),
        *(torch.cuda.Event, torch.Generator, torch.device, torch.dtype, torch.utils.hooks.RemovableHandle),
        *(np.ndarray, np.random.Generator, np.dtype, sentencepiece.SentencePieceProcessor, pathlib.Path, dict, list),
        *(set, str, bytes, tuple, int, float, threading.Thread, threading.Event, queue.Queue, deque, struct.Struct),
        *(concurrent.futures.ThreadPoolExecutor, enum.Enum, io.BufferedReader, io.TextIOWrapper, datetime.timedelta),
        *(Exception, OSError, contextlib.ExitStack, re.Pattern, re.Match, type(hashlib.sha256())),
    ]
    theirs = {name for kind in elsewhere for name in dir(kind)}
    ours: set[str] = set()
    for path in pathlib.Path(pgolf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            ours |= set(defined(node)) if isinstance(node, ast.ClassDef) else set()
    assert {name for name in ours & theirs if not name.startswith("__")} <= FOREIGN


def test_assertions_do_nothing_so_that_they_can_be_left_out():
    changing = {"setdefault", "append", "add", "pop", "update", "extend", "insert", "remove", "popleft", "step", "next"}
    for path in pathlib.Path(pgolf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                called = {
                    ast.unparse(n.func).rpartition(".")[2] for n in ast.walk(node.test) if isinstance(n, ast.Call)
                }
                assert not called & changing, f"{path}:{node.lineno}"
                assert not any(isinstance(n, ast.NamedExpr) for n in ast.walk(node.test)), f"{path}:{node.lineno}"
