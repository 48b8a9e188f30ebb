"""Folding: what a recipe settles goes, what it leaves open stays, and what a program does stays the same."""

import ast
import textwrap

import pytest

from pgolf.export.fold import fold


def tidy(text: str) -> str:
    return ast.unparse(ast.parse(textwrap.dedent(text)))


def folded(source: str, recipe: dict, *components: str) -> str:
    return fold(textwrap.dedent(source), recipe, components)


RECIPE = {
    "none": None,
    "on": True,
    "off": False,
    "part": {"deep": None},
    "sort": "B",
    "number": 0,
    "list": [{"within": None}],
}
FIELDS = "class A:\n" + "".join(
    f"  {name}: {'Kind' if name == 'sort' else 0}\n" for name in (*RECIPE, "deep", "within")
)
KIND = "class Kind(Enum):\n  A = 1\n  B = 2\n"


@pytest.mark.parametrize(
    ("expression", "outcome"),
    [
        ("a.none is None", "True"),
        ("a.b.none is not None", "False"),
        ("x if a.on else y", "x"),
        ("x if a.part else y", "x"),
        ("x if a.part is None else y", "y"),
        ("x if a.number else y", "y"),
        ("x if a.list is None else y", "y"),
        ("not a.off", "True"),
        ("a.none", "None"),
        ("a.within or x", "x"),
        ("a.on and x", "x"),
        ("a.off and x", "False"),
        ("x and a.off and y", "x and False"),
        ("f() and a.off", "f() and False"),
        ("x if f() and a.off else y", "x if f() and False else y"),
        ("x if b and a.off else y", "y"),
        ("x or a.off or y", "x or y"),
        ("a.sort is Kind.A", "False"),
        ("a.sort is not Kind.A", "True"),
        ("a.sort == 'B'", "a.sort == 'B'"),
        ("x if a.sort else y", "x if a.sort else y"),
        ("f().none", "f().none"),
        ("os.none", "os.none"),
        ("a.unknown is None", "a.unknown is None"),
        ("[a.part, a.number]", "[a.part, a.number]"),
        ("a.shape is None", "a.shape is None"),  # tensors have one too
    ],
)
def test_what_a_recipe_settles(expression, outcome):
    source = f"import os\n{KIND}{FIELDS}def f(a, b, x, y):\n  return {expression}"
    assert folded(source, RECIPE, "A").splitlines()[-1].strip() == f"return {outcome}"


@pytest.mark.parametrize(
    "also",
    [
        "class B:\n  none: 0",  # made from other things than the recipe
        "class B:\n  none = 1",
        "class B:\n  def none(self): return 1",
        "def g(b): b.none = 1",
        "def g(b): b.none = None",  # not of ours alone
        "class B:\n  def g(self): self.none = open()",
        "class B:\n  def g(self): self.none += 1",
        "class B:\n  def g(self): self.none, x = f()",
        "class B:\n  def g(self):\n    for self.none in x: pass",
        "class B:\n  def g(self):\n    with x as self.none: pass",
        "class B:\n  def g(self): del self.none",
        "def g(b): return replace(b, none=1)",
        "def g(b): setattr(b, 'none', 1)",
        "def g(b): object.__setattr__(b, 'none', 1)",
        "def g(b): b.register_buffer('none', 1)",
    ],
)
def test_every_doubt_leaves_it_open(also):
    source = f"{FIELDS}{also}\ndef h(a):\n  return a.none is None"
    assert folded(source, RECIPE, "A").endswith("return a.none is None")


def test_what_other_classes_agree_about():
    source = """
    class A:
        none: 0
    class B:
        none = None
        def __init__(self): self.none = None
    def h(a): return a.none
    """
    assert folded(source, {"none": None}, "A").endswith("return None")


def test_one_thing_settles_the_next():
    source = """
    class A:
        off: 0
    class Held: pass
    class B:
        def __init__(self, a, held=None):
            self.held = held
            self.made = Held() if a.off else None
        @property
        def ready(self):
            return self.made is not None
        def go(self):
            if self.ready:
                return self.made
            if self.held:
                return 3
            return 2
    def use(a): return B(a).go()
    """
    found = folded(source, {"off": False}, "A")
    assert "Held()" not in found
    assert found.split("def go(self):")[1].split() == ["return", "2", "def", "use(a):", "return", "B(a).go()"]


@pytest.mark.parametrize(
    ("calls", "outcome"),
    [
        ("f(1, False)", "x"),
        ("f(1)", "x"),
        ("f(1, flag=False), f(2)", "x"),
        ("f(1, True), f(2)", "x if not flag else y"),
        ("f(1, unknown)", "x if not flag else y"),
        ("f(*args)", "x if not flag else y"),
        ("f(1, **args)", "x if not flag else y"),
        ("f(1), keep(f)", "x if not flag else y"),
        ("f(1, a.off)", "x"),
        ("f(1, a.nothing(2))", "x"),
        ("f(1, a.nothing(g()))", "x if not flag else y"),
        ("f(1, a.something())", "y"),
        ("f(1, a.open())", "x if not flag else y"),
        ("g2(False)", "x"),
        ("g2(False), g2(1)", "x if not flag else y"),
    ],
)
def test_a_parameter_that_is_always_the_same(calls, outcome):
    source = f"""
    class A:
        off: 0
    class N:
        def nothing(self, x): return None
        def something(self): return 1
        def open(self): return g()
    def f(n, flag=False):
        return x if not flag else y
    def g2(given): return f(1, given)
    def use(a, args, unknown): {calls}
    """
    if "g2(" not in calls:
        source = source.replace("def g2(given): return f(1, given)", "")
    found = folded(source, {"off": False}, "A")
    assert found.split("def f(n, flag=False):\n")[1].split("\n")[0].strip() == f"return {outcome}"


@pytest.mark.parametrize(
    "rebound",
    [
        "flag = g()",
        "flag += 1",
        "for flag in x: pass",
        "lambda flag: flag",
        "import flag",
        "[flag for flag in x]",
        "def flag(): pass",
    ],
)
def test_a_parameter_that_is_bound_again_is_open(rebound):
    source = f"def f(flag):\n    {rebound}\n    return 1 if flag else 2\ndef use():\n    f(False)"
    assert folded(source, {}) == tidy(source)


def test_a_class_that_makes_more_of_itself_is_open():
    source = """
    class A:
        def __init__(self, flag): self.x = 1 if flag else 2
        @classmethod
        def other(cls): return cls(True)
    def use(): A(False)
    """
    assert folded(source, {}) == tidy(source)


def test_closed_branches_and_what_follows_a_return_go():
    source = """
    class A:
        on: 0
    def f(a):
        for i in a:
            if a.on:
                go(i)
            else:
                stay(i)
        if not a.on:
            never()
        if a.on:
            return 1
        return 2
    """
    assert folded(source, {"on": True}, "A") == tidy("""
    class A:
        on: 0
    def f(a):
        for i in a:
            go(i)
        return 1
    """)
