"""Several modules as one program: the same names mean the same things, and it does what importing the modules would do."""

import ast
import subprocess
import sys
import textwrap

import pytest

from pgolf.errors import UserError
from pgolf.export.merge import merge
from pgolf.export.scopes import scope_names
from pgolf.export.strip import strip

PACKAGE = {
    "p": "NAME = 'p'",
    "p.inner": """
        import os
        import math as m
        from p.inner.deep import shout, Thing as Other
        from p.shared import twice as shared
        value = 1
        class Thing(Other):
            other = value + 1
            size = m.floor(2.5)
            def get(self, other=other):
                return value + other + self.size
        def shadowed(os, shout=shout):
            def inside(shout):
                nonlocal os
                os += 1
                return shout + os
            return inside(os), [os for os in (os, os)], (lambda shout: shout * 2)(os)
    """,
    "p.inner.deep": """
        from math import sqrt as root
        class Thing:
            value = 5
            def root(self): return root(self.value + 4)
        def shout(what):
            import json
            from p.shared import twice
            return json.dumps(twice(what)) + "!"
    """,
    "p.shared": "from os import sep as value\ndef twice(os): return [os, os]",
    "p.main": """
        import p.inner as inner
        from p import inner as again, NAME
        from p.shared import value
        def main():
            from p.late import late
            first, second = inner.Thing(), again.Thing()
            return first.get(), second.root(), inner.shout(NAME), again.shadowed(3), value, late(), inner.shared(1)
    """,
    "p.late": """
        from p.inner.deep import Thing
        value = [Thing() for Thing in (Thing, Thing)]
        def late():
            try:
                raise KeyError("k")
            except KeyError as value:
                return str(value), len(globals_like(value))
        def globals_like(value, *args, **kwargs): return {**kwargs, "value": value, **{k: k for k in args}}
    """,
}


@pytest.fixture
def written(tmp_path):
    for name, source in PACKAGE.items():
        packages = [other.rpartition(".")[0] for other in PACKAGE]
        path = tmp_path.joinpath(*name.split("."))
        path = path / "__init__.py" if name in packages else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return tmp_path


def said(code: str, folder) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_does_what_the_modules_do(written):
    merged = merge({name: strip(textwrap.dedent(source), name) for name, source in PACKAGE.items()})
    (written / "one.py").write_text(f"{merged.source}\nprint({merged.names['p.main.main']}())")
    alone = written / "alone"
    alone.mkdir()
    assert said((written / "one.py").read_text(), alone) == said("import p.main; print(p.main.main())", written)


def test_every_top_level_name_is_its_own_and_foreign_imports_come_once_and_first():
    sources = {
        "m": "import os\nfrom o import f as g\nX = 1\ndef f(): return g() + X",
        "o": "import os\nX = 2\ndef f(): return X",
    }
    merged = merge(sources)
    assert merged.source.startswith("import os\n'o'\n")
    assert merged.source.count("import os") == 1
    assert len({merged.names[name] for name in ("m.X", "o.X", "m.f", "o.f")}) == 4


def test_modules_run_in_the_order_of_their_imports():
    sources = {
        "a": "from a.b import B\nA = B",
        "a.b": "from c import C\nB = C",
        "c": "C = 1",
        "z": "def f():\n  from a import A\n  return A",
    }
    marks = [line for line in merge(sources).source.splitlines() if line[:1] in ("'", '"')]
    assert [mark.strip("'\"") for mark in marks] == ["c", "a.b", "a", "z"]


def test_fixed_names_stay():
    sources = {"m": "class Kind: pass", "o": "class Kind: pass"}
    assert merge(sources, ["o.Kind"]).names == {"m.Kind": "Kind_", "o.Kind": "Kind"}
    with pytest.raises(UserError, match="means nothing else"):
        merge(sources, ["o.Kind", "m.Kind"])
    with pytest.raises(UserError, match="means nothing else"):
        merge({"m": "class Kind: pass\ndef f(Kind): pass"}, ["m.Kind"])


@pytest.mark.parametrize("name", ["len", "RECIPE"])
def test_names_that_mean_something_already_are_left_to_it(name):
    assert merge({"m": f"{name} = 1"}).names == {f"m.{name}": f"{name}_"}


def test_a_module_that_is_handed_on_is_refused():
    with pytest.raises(UserError, match="used as a value"):
        merge({"m": "import o as x\ndef f(): return dir(x)", "o": "y = 1"})


def test_a_name_that_a_class_may_take_from_two_places_is_refused():
    with pytest.raises(UserError, match="rename one"):
        merge({"m": "x = 1\nclass A:\n  x = x + 1"})


def test_the_names_of_a_scope():
    source = """
    def f(a, /, b, *c, d=(x := 1), **e):
        import g.h, i as j
        for k, (l, *m) in n: pass
        with o as p: pass
        try: pass
        except q as r: pass
        def s(t): u = 1
        class v(w): y = 1
        z = [aa for aa in bb if (cc := aa)]
        dd: int = 1
        ee.ff = gg[hh] = 1
        match ii:
            case [jj, *kk]: pass
            case {"x": ll, **mm}: pass
        def nn():
            nonlocal a
            a = 1
    """
    function = ast.parse(textwrap.dedent(source)).body[0]
    assert " ".join(scope_names(function)) == "a b d c e g j k l m p r s v z cc dd jj kk mm ll nn"
    assert scope_names(function.body[-1]) == []
