"""The exported file: finds what is needed, strips it without changing it, and runs from memory with nothing installed."""

import ast
import base64
import builtins
import bz2
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgolf
from pgolf.data import Corpus, TrainingText, ValidationText
from pgolf.errors import UserError
from pgolf.export import code, standalone
from pgolf.export.closure import closure
from pgolf.export.program import ENTRY, NAMED_ERRORS, PACKAGE, program
from pgolf.export.program import RECIPE as RECIPE_CLASS
from pgolf.export.strip import strip

TOY = {
    "__init__.py": '"""A toy."""\n__version__ = "1"\n',
    "start.py": '''"""Entry."""
from typing import TYPE_CHECKING
from toy.parts import Part
import toy.numbers as numbers

if TYPE_CHECKING:
    from toy.unused import Nothing


def main(recipe: dict, script: str) -> "Nothing":
    """Run."""
    from toy.late import report  # found inside a function

    report(Part(**recipe["part"]).twice + numbers.ONE, __name__, script)
''',
    "parts/__init__.py": '''"""Parts."""
from dataclasses import dataclass
from toy.parts.base import Base
@dataclass(frozen=True)
class Part(Base):
    """A part."""
    size: int
    @property
    def twice(self) -> int:
        from toy.parts.deep import times
        return times(self.size, 2)
''',
    "parts/base.py": "from toy.numbers import ONE\nclass Base:\n    '''Only words.'''\n",
    "parts/deep.py": "def times(a: int, b: int) -> int:\n    return a * b\n",
    "numbers.py": "ONE = 1\n",
    "late.py": """import inspect
def report(value, where, script):
    "Say it."
    print(f"{value} 'é' {where} {script} " + inspect.getsource(report).splitlines()[0])
""",
    "unused.py": "raise RuntimeError('never imported')\n",
}
NEEDED = ["toy", "toy.late", "toy.numbers", "toy.parts", "toy.parts.base", "toy.parts.deep", "toy.start"]
TO_NEED = {"entry": "pgolf.errors:need"}
DECODERS = ("def from_zstd(", "def from_brotli(", "class RangeRows(", "def from_lzma(")
RECIPE = {"part": {"size": 21}, "words": 'é "quoted" {braces} \\'}


@pytest.fixture
def toy(tmp_path) -> Path:
    for name, text in TOY.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "toy"


def build(toy, recipe=RECIPE, **changes):
    return code.build(recipe, **{"entry": "toy.start:main", "package": toy} | changes)


def test_closure_follows_every_kind_of_import_and_nothing_else(toy):
    assert [m.name for m in closure(["toy.start"], toy)] == NEEDED


def test_targets_of_the_recipe_are_roots(toy):
    recipe = {"a": [{"_target_": "toy.parts.deep.times"}]}
    made = program(recipe, "toy.late:report", toy)
    assert made.names == ("times",)
    assert "def times(" in made.source
    assert "class Part" not in made.source
    with pytest.raises(UserError, match=r"elsewhere\.Thing: there is no module 'elsewhere' here"):
        program(recipe | {"_target_": "elsewhere.Thing"}, "toy.late:report", toy)


def test_unknown_root_is_a_mistake(toy):
    with pytest.raises(UserError, match="torch: not a module of toy"):
        closure(["torch"], toy)


def test_unknown_entry_is_a_mistake(toy):
    with pytest.raises(UserError, match=r"there is no module toy\.nowhere"):
        build(toy, {}, entry="toy.nowhere:main")


@pytest.mark.slow
def test_every_seed_and_number_of_ranks_ships_the_same_script(monkeypatch):
    monkeypatch.setattr(code.build, "__kwdefaults__", TO_NEED | {"package": PACKAGE, "cache": None})
    same = [
        {
            "seed": {"value": s},
            "machine": {"_target_": "pgolf.machine.Machine", "ranks": s, "threads": s, "device": d, "compile": True},
            "quant": {"bits": 5},
        }
        for s, d in ((1, "CPU"), (2, "CUDA"))
    ]
    first, second = map(code.script, same)
    assert first == second
    assert first.section() == code.weigh(first.data)
    assert code.unpack(first.data).recipe == {"machine": {"compile": True}, "quant": {"bits": 5}}
    assert code.script({"quant": {"bits": 6}}) != first
    assert code.script({"machine": {"compile": False}, "quant": {"bits": 5}}) != first


def test_texts_are_frozen_without_the_way_to_them(monkeypatch):
    monkeypatch.setattr(code.build, "__kwdefaults__", TO_NEED | {"package": PACKAGE, "cache": None})
    home = str(Path.home() / "text")
    training = TrainingText("t", (f"{home}/a.bin",), (9,), 7, 3, 2, f"{home}/t.model")
    validation = ValidationText("t", (f"{home}/b.bin",), (5,), ("ff",), 11, 7, f"{home}/t.model", "ee")
    corpus = Corpus(training, validation, SimpleNamespace(name="wiki"))
    made = code.script({"data": {"folder": home, "vocab_size": 7}}, corpus)
    held = code.unpack(made.data).recipe
    assert held["data"] == {"folder": "", "vocab_size": 7}
    assert held["texts"]["folder"] == "data/wiki"
    assert held["texts"]["training"]["paths"] == ["a.bin"]
    assert held["texts"]["validation"]["sha256"] == ["ff"]
    assert str(Path.home()) not in str(held)


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["a_000.bin", "a_001.bin"], ["a_", ".bin", 3]),
        (["a_0.bin2"], None),
        (["a_{}%s7_08.bin", "a_{}%s7_09.bin"], None),
        (["a_1.bin", "a_2.bin"], None),
        (["a_00.bin", "b_01.bin"], None),
        (["train.bin"], None),
        (["x\n9.bin"], None),
        ([f"{i:02}" for i in range(120)], ["", "", 2]),
    ],
)
def test_names_that_count_up_are_frozen_as_a_pattern(names, frozen):
    found = code.numbered(names)
    assert list(standalone.names(found, len(names))) == names
    assert found == (frozen or names)


def test_same_inputs_same_bytes_other_inputs_other_bytes(toy):
    assert build(toy) == build(toy)
    assert build(toy, dict(reversed(RECIPE.items()))) == build(toy)
    assert build(toy, RECIPE | {"x": 1}) != build(toy)
    (toy / "unused.py").write_text("1\n")
    first = build(toy)
    (toy / "numbers.py").write_text("ONE = 2\n")
    assert build(toy) != first


def test_the_cache_gives_the_same_bytes_and_is_not_needed(toy, tmp_path):
    cache = tmp_path / "cache"
    first = build(toy, cache=cache)
    (kept,) = cache.iterdir()
    assert build(toy, cache=cache) == build(toy) == first
    kept.write_text('"raise SystemExit"')
    assert build(toy, cache=cache) != first, "it is used"
    kept.write_text("half a fi")
    assert build(toy, cache=cache) == first
    (toy / "numbers.py").write_text("ONE = 2\n")
    assert build(toy, cache=cache) == build(toy) != first
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert build(toy, cache=blocked) == build(toy)


@pytest.mark.parametrize("how", ["lzma", "bz2", "brotli"])
def test_runs_from_memory_where_the_package_is_not(toy, tmp_path, monkeypatch, how):
    packed = code._packed
    monkeypatch.setattr(code, "_packed", lambda text, brotli: [p for p in packed(text, True) if p[0] == how])
    script = tmp_path / "elsewhere" / "train_gpt.py"
    script.parent.mkdir()
    script.write_bytes(build(toy))
    compiled = subprocess.run([sys.executable, "-W", "error", "-m", "py_compile", script], check=False)
    assert compiled.returncode == 0
    run = [sys.executable, "-W", "error", "train_gpt.py"]
    found = subprocess.run(run, cwd=script.parent, capture_output=True, text=True, encoding="utf-8", check=False)
    assert found.stderr == ""
    assert re.match(r"43 'é' __main__ \S*train_gpt\.py def \w+\(value,where,script\):", found.stdout)
    assert code.unpack(script.read_bytes()).recipe == RECIPE


def test_brotli_only_packs_a_file_whose_artifact_needs_it():
    text = b"some text " * 1000
    assert [how for how, _ in code._packed(text, False)] == ["lzma", "bz2"]
    assert [how for how, _ in code._packed(text, True)] == ["lzma", "bz2", "brotli"]


def test_a_formatted_traceback_shows_the_line(toy, tmp_path):
    body = "try:\n  1 / value\n except TypeError:\n  print(traceback.format_exc())"
    late = f"import traceback\ndef report(value, where):\n {body}\n"
    (toy / "late.py").write_text(late)
    (tmp_path / "train_gpt.py").write_bytes(build(toy, RECIPE | {"part": {"size": 0}}))
    (toy / "start.py").write_text("def main(recipe, script):\n from toy.late import report\n report('', '')\n")
    (tmp_path / "train_gpt.py").write_bytes(build(toy))
    found = subprocess.run([sys.executable, tmp_path / "train_gpt.py"], capture_output=True, text=True, check=False)
    assert re.search(r'File "packed", line \d+, in \w+\n    try:1/value\n', found.stdout)


def test_unpack_reads_it_back_without_running_it(toy):
    inside = code.unpack(build(toy))
    assert inside.recipe == RECIPE
    assert inside.modules == {"program": program(RECIPE, "toy.start:main", toy).small()}
    assert "Run." not in inside.modules["program"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"print(1)",
        b"S=1",
        b"\x00",
        b"S=lzma.x(f('!')).y()",
        b"S=bz2.x(f('0')).y()",
        b"S=a.b(c('')).d()",
        b"S=a.b(''.c()).d()",
        b"S=lzma.x(''.f()).y()",
        b"S=bz2.x('no stream'.f()).y()",
        b"S=brotli.x('!'.f()).y()",
        "S=bz2.x('\u20ac'.f()).y()".encode(),
        b"S=bz2.x(3 .f()).y()",
        b"S=bz2.x(base64.b85decode('\"')).y()",
    ],
)
def test_unpack_refuses_other_files(data):
    with pytest.raises(UserError, match="not a train_gpt"):
        code.unpack(data)


def test_files_of_version_0_1_0_are_unpacked_too():
    text = "RECIPE={'a':[1,'b']}\nprint(RECIPE)"
    packed = base64.b85encode(bz2.compress(text.encode())).decode()
    old = f"""\
import base64,linecache,bz2
S=bz2.decompress(base64.b85decode("{packed}")).decode()
linecache.cache["packed"]=len(S),None,S.splitlines(1),"packed"
exec(compile(S,"packed","exec"))
"""
    assert code.unpack(old.encode()) == code.Inside({"a": [1, "b"]}, {"program": "print(RECIPE)"})


AWKWARD = st.lists(st.sampled_from([bytes([b]) for b in b"\n\r\\'\0 7a\t\x85\xa0\x0c\""]), max_size=40).map(b"".join)


@given(st.binary(max_size=200) | AWKWARD)
def test_quoted_bytes_are_the_same_bytes_whatever_an_editor_does_to_ends_of_lines(data):
    literal = code.quoted(data).encode("latin-1")
    assert not set(literal) & set(b"\0\r")
    file = b"# coding: latin-1\nS=" + literal + b"\n"
    stripped = b"\n".join(line.decode("latin-1").rstrip().encode("latin-1") for line in file.split(b"\n"))
    for written in (file, file.replace(b"\n", b"\r\n"), stripped):
        names: dict = {}
        exec(compile(written, "packed", "exec"), names)
        assert names["S"].encode("latin-1") == data


def test_quoted_escapes_what_it_must():
    assert code.quoted(b"a'b\nc") == "'''a'b\nc'''"
    assert code.quoted(b"a''b \n'") == r"'''a\''b \n\''''"
    assert code.quoted(b"\x001\0x") == r"'''\x001\0x'''"


def test_weigh():
    assert code.weigh(b"abc") == {
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        "bytes": 3,
    }


def test_a_recipe_must_be_plain_json(toy):
    with pytest.raises(ValueError, match="Out of range"):
        build(toy, {"x": float("nan")})


@pytest.mark.parametrize(
    ("source", "stripped"),
    [
        (
            "def f(x: int = 1, *a: int, k: int, **kw: int) -> int:\n  'Twice.'\n  return 2*x # !",
            "def f(x=1, *a, k, **kw):\n    return 2 * x",
        ),
        ("class A:\n  'Words.'", "class A:\n    pass"),
        ("@d\nclass A:\n  'Words.'\n  x: int\n  'about x'\n  y: int = 1", "@d\nclass A:\n    x: int\n    y: int = 1"),
        ("@reads\ndef f(x: int): return x", "@reads\ndef f(x):\n    return x"),
        ("def f():\n  assert x\n  y: int = 1\n  z: int", "def f():\n    y = 1"),
        (
            "x: int = 1\nclass A:\n  def f(self): self.x: int = 1",
            "x = 1\n\nclass A:\n\n    def f(self):\n        self.x = 1",
        ),
        ("for a in b:\n  assert a", "for a in b:\n    pass"),
        ("if TYPE_CHECKING:\n  import a\nelse:\n  import b", "import b"),
        ("async def f():\n  '''x'''", "async def f():\n    pass"),
        ("if a:\n  if TYPE_CHECKING:\n    import b", "if a:\n    pass"),
        ("for a in b:\n  pass", "for a in b:\n    pass"),
        ("x = 'kept'", "x = 'kept'"),
        ("'only words'", ""),
    ],
)
def test_strip(source, stripped):
    assert strip(source, "m") == stripped


def test_strip_is_idempotent_on_every_module_of_the_package():
    for path in sorted(Path(pgolf.__file__).parent.rglob("*.py")):
        once = strip(path.read_text(encoding="utf-8"), path.name)
        assert strip(once, path.name) == once
        assert ast.get_docstring(ast.parse(once)) is None


@settings(max_examples=30)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=20), max_size=4))
def test_any_plain_recipe_survives(recipe):
    data = code.build(recipe, entry="pgolf.errors:need")
    assert code.unpack(data).recipe == recipe


def test_what_is_named_here_is_there():
    for dotted in (RECIPE_CLASS, *NAMED_ERRORS, ENTRY.replace(":", ".")):
        module, _, name = dotted.rpartition(".")
        path = PACKAGE.parent.joinpath(*module.split("."))
        text = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
        assert re.search(rf"^(class|def) {name}\b", text, re.MULTILINE), dotted


@pytest.mark.slow
def test_only_the_decoders_of_the_recipes_codec_stay():
    zstd = {"_target_": "pgolf.codec.Zstd", "level": 3}
    rows = {"_target_": "pgolf.codec.RangeRows", "small": {"_target_": "pgolf.codec.Brotli"}}
    small, large = (program({"codec": codec}).source for codec in (zstd, rows))
    assert [name in small for name in DECODERS] == [True, False, False, False]
    assert [name in large for name in DECODERS] == [False, True, True, False]


def test_names_that_are_looked_up_while_it_runs_stay():
    made = program({"quant": {"fit": {"_target_": "pgolf.quant.Cap"}}, "codec": {"_target_": "pgolf.codec.Range"}})
    assert made.names == ("Range", "Cap", "UserError")
    assert all(f"class {name}(" in made.small() for name in made.names)


def test_the_package_itself_becomes_a_program_without_what_no_exported_file_runs():
    source = program({"seed": 1}).source
    compile(source, "program", "exec")
    assert not any(
        word in source
        for word in (
            "import hydra",
            "import rich",
            "import wandb",
            "def compose",
            "TerminalConsole",
            "def mirrored",
            "elastic_launch(",
        )
    )


def test_what_a_process_adds_to_the_builtins_changes_no_byte(toy, monkeypatch):
    """A translation's `_`, a debugger's names, those of `site`: none is Python's own."""
    first = build(toy)
    for name in ("_", "ONE", "report", "display", "a", "A"):
        monkeypatch.setattr(builtins, name, 1, raising=False)
    for name in ("exit", "help", "copyright"):
        monkeypatch.delattr(builtins, name, raising=False)
    assert build(toy) == first
    assert builtins.display == 1, "what was put aside is back"
