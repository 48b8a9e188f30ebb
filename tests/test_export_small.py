"""Pruning and shrinking: nothing that can be reached goes, nothing that computes changes."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import pgolf
from pgolf import code
from pgolf.prune import prune
from pgolf.shrink import Named, minified, positional, quiet
from pgolf.strip import strip


def tidy(text: str) -> str:
    return ast.unparse(ast.parse(textwrap.dedent(text)))


def pruned(root="m.main", never=(), **modules):
    return prune({name.replace("__", "."): textwrap.dedent(text) for name, text in modules.items()}, [root], never)


def test_what_is_named_stays_and_the_rest_goes():
    found = pruned(
        m="""
        import os, sys
        from o import used, unused
        A = 1
        B: int = A
        C = D = B
        def main(): return helper(C) + used
        def helper(x): return sys.argv
        def forgotten(): return os.sep
        """,
        o="used = 1\nunused = 2",
    )
    assert found == {
        "m": tidy("""
        import sys
        from o import used
        A = 1
        B: int = A
        C = D = B
        def main(): return helper(C) + used
        def helper(x): return sys.argv
        """),
        "o": "used = 1",
    }


@pytest.mark.parametrize(
    ("source", "stays"),
    [
        ("from o import f\ndef main(): f()", True),
        ("def main():\n  from o import f\n  f()", True),
        ("import o\ndef main(): o.f()", True),
        ("def main():\n  import o as x\n  x.f()", True),
        ("import o\ndef main(): getattr(o, 'f')()", True),
        ("import o\ndef main(): anything(o)", True),
        ("import o\ndef main(): o.g()", False),
        ("from o import f\ndef main(): pass", False),
        ("from o import f\ndef other(): f()\ndef main(): pass", False),
        ("from o import f\nf()\ndef main(): pass", True),
        ("from o import f\nif __name__ == '__main__': f()\ndef main(): pass", False),
        ("from o import f\n@f\ndef filed(): pass\ndef main(): pass", True),
        ("from o import f\n@cache\ndef unfiled(): f()\ndef main(): pass", False),
        ("from o import f\nclass A(Base):\n  def hook(self): f()\ndef main(): A()", True),
        ("from o import f\nclass A:\n  def hook(self): f()\ndef main(): A()", False),
        ("from o import f\nclass A:\n  def hook(self): f()\ndef main(): A().hook", True),
        ("from o import f\nclass A:\n  def hook(self): f()\ndef main(): getattr(A(), 'hook')", True),
        ("from o import f\nclass A:\n  def __len__(self): f()\ndef main(): A()", True),
        ("from o import f\nclass A:\n  x = f()\ndef main(): A()", True),
        ("from o import f\nclass A:\n  x: 'f'\ndef main(): A()", True),
        ("from o import f\nclass A(f): pass\nclass B(A):\n  def hook(self): pass\ndef main(): B()", True),
    ],
)
def test_every_doubt_keeps(source, stays):
    found = pruned(m=source, o="def f(): pass\ndef g(): pass")
    assert ("def f()" in found.get("o", "")) is stays


def test_a_method_of_a_class_below_a_frameworks_stays():
    found = pruned(
        m="""
        from o import Module
        class Ours(ABC): pass
        class A(Ours):
            def hook(self): pass
        class B(Module):
            def hook(self): pass
        class C(A, B): 
            def hook(self): pass
        def main(): A(), C()
        """,
        o="class Module(framework.Module): pass",
    )["m"]
    assert found.count("def hook") == 2, "only A's may go"


def test_packages_are_there_for_their_modules():
    assert pruned("a.b.main", a="X = 1", a__b="def main(): pass") == {"a": "", "a.b": "def main():\n    pass"}


def test_a_name_that_is_never_used_goes_where_it_is_named():
    found = pruned(
        m="from o import f, g\ndef main(): f() if 0 else g()",
        o="def f(): h()\ndef g(): pass\ndef h(): pass",
        never=["o.f"],
    )
    assert found == {"m": tidy("from o import g\ndef main(): f() if 0 else g()"), "o": tidy("def g(): pass")}


@pytest.mark.parametrize(
    ("source", "shrunk"),
    [
        ("raise E(f'{x} is {len(y)} by {z!r}', 'a.b', 'some words', f(x))", "raise E(f'{x} {z!r}', 'a.b', '', '')"),
        ("class A(ABC):\n  @property\n  @abstractmethod\n  def f(self): ...", "class A:\n    pass"),
        ("need(all(x), 'a.b', f(x), 'more than 1')", "need(all(x), 'a.b', '', '')"),
        ("@d\nclass A:\n  x: Y[int]\n  y: ClassVar[int] = 1", "@d\nclass A:\n    x: 0\n    y: ClassVar[int] = 1"),
        ("if a:\n  raise B", "if a:\n    raise B"),
    ],
)
def test_quiet(source, shrunk):
    assert quiet({"m": source}, []) == {"m": shrunk}


def test_components_have_been_checked_and_keep_their_types():
    source = """
    from n import Base
    class A(Base):
        x: int
        def __post_init__(self): need(self.x > 1)
    class B:
        x: int
        def __post_init__(self): need(self.x > 1)
    class C(Base):
        def __post_init__(self): object.__setattr__(self, "y", 1)
    """
    base = "class Base:\n  def __post_init__(self): need(self.z)\n  z: int"
    found = quiet(
        {"m": textwrap.dedent(source), "n": base, "r": "from m import A, C"}, ["r.A", "r.C"], typed=["x", "z"]
    )
    assert found["m"].count("need") == 1, "B is no component"
    assert "x: int" in found["m"]
    assert "__setattr__" in found["m"]
    assert found["n"] == "class Base:\n    z: int"


def test_trusted_files_need_no_guards():
    guard = "if x:\n    raise A"
    source = f"def f(x):\n  {guard}\ndef g(x):\n  for x in y:\n   {guard}\n  if x:\n    return 1\n  raise B"
    found = quiet({"m": source}, [], trusted=["m"])["m"]
    assert found == tidy("def f(x): pass\ndef g(x):\n  if x:\n    return 1\n  raise B")


@pytest.mark.parametrize(
    ("use", "free"),
    [
        ("f(1, 2)", ["a", "b"]),
        ("f(1, b=2)", ["a"]),
        ("f(**{'a': 1, 'b': 2})", []),
        ("f(**x)", ["a", "b"]),
        ("np.zeros(1, a=2, b=3)", ["a", "b"]),
        ("unknown(1, a=2)", []),
        ("K(a=1)", ["a", "b"]),
        ("K(**{'a': 1})", ["a", "b"]),
        ("dict(a=1)", ["a", "b"]),
        ("partial(f, b=1)", ["a"]),
        ("partial(g, b=1)", ["a", "b"]),
    ],
)
def test_parameters_that_a_call_may_name_keep_their_names(use, free):
    tree = ast.parse(
        f"import numpy as np\nfrom functools import partial\nclass K: pass\ndef f(a, b): return a + b\n{use}"
    )
    named = Named([tree])
    (function,) = [n for n in positional(tree, named).body if isinstance(n, ast.FunctionDef)]
    assert [a.arg for a in function.args.posonlyargs] == free


def test_minified_modules_do_the_same():
    source = """
    import sys
    from dataclasses import dataclass
    @dataclass(frozen=True, kw_only=True)
    class Point:
        left: float
        right: float
        def moved(self, distance, factor=1.0):
            return Point(left=self.left + distance * factor, right=self.right)
    def total(points, scale):
        return sum(point.left * scale + point.right for point in points)
    print(total([Point(left=1.0, right=2.0).moved(3.0, factor=2.0)], 10))
    """
    (text,) = minified({"m": textwrap.dedent(source)}).values()
    assert len(text) < len(source) / 1.4
    assert "factor" in text, "a call names it"
    assert "distance" not in text
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert found.stdout == "72.0\n"


def test_the_package_itself_prunes_to_what_compiles():
    modules = {m.name: strip(m.source, m.name) for m in code.closure(["pgolf.standalone"], code.PACKAGE)}
    found = prune(quiet(modules, []), ["pgolf.standalone.main"], code.NEVER)
    assert "pgolf.compose" not in found
    assert sum(map(len, found.values())) < 0.8 * sum(map(len, modules.values()))
    for name, text in found.items():
        compile(text, name, "exec")
    assert not any(word in "".join(found.values()) for word in ("import hydra", "import rich", "import wandb"))


def test_assertions_do_nothing_so_that_they_can_be_left_out():
    changing = {"setdefault", "append", "add", "pop", "update", "extend", "insert", "remove", "popleft", "step", "next"}
    for path in Path(pgolf.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert):
                called = {
                    ast.unparse(n.func).rpartition(".")[2] for n in ast.walk(node.test) if isinstance(n, ast.Call)
                }
                assert not called & changing, f"{path}:{node.lineno}"
                assert not any(isinstance(n, ast.NamedExpr) for n in ast.walk(node.test)), f"{path}:{node.lineno}"


def test_never_names_what_is_there():
    for dotted in (*code.NEVER, *code.DECODERS.values(), *code.DECODERS):
        module, _, name = dotted.rpartition(".")
        path = Path(pgolf.__file__).parent.parent.joinpath(*module.split("."))
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        assert f"class {name}(" in text or f"def {name}(" in text, dotted


def test_only_the_decoders_of_the_recipes_codec_stay():
    zstd = {"_target_": "pgolf.codec.Zstd", "level": 3}
    rows = {"_target_": "pgolf.codec.RangeRows", "small": {"_target_": "pgolf.codec.Brotli"}}
    left = {
        name: set(code.DECODERS.values()) - set(code.Reach.of({"codec": c}).never)
        for name, c in (("zstd", zstd), ("rows", rows))
    }
    assert left["zstd"] == {code.DECODERS["pgolf.codec.Zstd"]}
    assert left["rows"] == {code.DECODERS[f"pgolf.codec.{name}"] for name in ("RangeRows", "Brotli")}
    assert code.Reach.of({"codec": {"_target_": "elsewhere.Codec"}}).never == code.NEVER


def test_tables_lose_what_is_never_used():
    found = pruned(m="T = {'a': f, 'b': g}\ndef f(): pass\ndef g(): pass\ndef main(): T", never=["m.g"])
    assert found == {"m": tidy("T = {'a': f}\ndef f(): pass\ndef main(): T")}


def test_fields_whose_value_is_no_word_need_no_type():
    source = "class A:\n  kind: Kind\n  part: Part | None"
    assert quiet({"m": source}, ["m.A"], typed=["kind"]) == {"m": "class A:\n    kind: Kind\n    part: 0"}
