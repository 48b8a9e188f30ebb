"""Components outside of pgolf: they compose, run, are audited and ship; what cannot ship is refused before anything starts."""

import json
import re
import subprocess
import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from pgolf.config import own
from pgolf.config.compose import register_experiments, rehearse
from pgolf.errors import UserError
from pgolf.export.program import program
from tests.bare import bare_environment
from tests.command import TINY, environment, record, run
from tests.pages import BLOCKS, EXAMPLE
from tests.processes import PATIENCE
from tests.test_export import NEEDED, alone, texts_of

RULE = next(
    block.text
    for block in BLOCKS
    if block.page == EXAMPLE and block.file.endswith(".py") and "class Bias" in block.text
)
TTT = "# A rule of mine.\n_target_: my_package.my_ttt.Bias\nchunk_tokens: 8192\nrate: 20.0\n"
CODEC = '''\
"""The standard library's bzip2, by a module that stands alone."""
import bz2
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pgolf import errors
from pgolf.codec import Codec as Base

LEVELS = []
for share in range(1, 10):  # a name that pgolf has too
    LEVELS += [share]
assert LEVELS


@dataclass(frozen=True, kw_only=True)
class Bzip2(Base):
    """bzip2 at `level`."""

    level: int
    method: ClassVar[str] = "bzip2"

    def __post_init__(self) -> None:
        errors.need(self.level in LEVELS, "codec.level", self.level, f"from {min(LEVELS)} to {max(LEVELS)}")

    @staticmethod
    def decoded(data, limit):
        try:
            return bz2.decompress(data)[:limit]
        except (OSError, ValueError) as wrong:
            raise errors.ArtifactError(f"bzip2: {wrong}") from None

    @property
    def name(self) -> str:
        return self.method

    @property
    def over_entropy(self) -> float:
        return float(np.float64(1.1))

    def encode(self, raw, itemsize, columns=0):
        return bz2.compress(raw, self.level)

    def candidates(self, length):
        return (self,)
'''
PLACE = {
    "my_package/__init__.py": '"""Mine."""\n\nfrom .my_ttt import Bias as Bias\n',
    "my_package/my_ttt.py": "from __future__ import annotations\n\n"
    + RULE[: RULE.index("def slope(")]
    + "\nfrom . import arithmetic\n"
    "from .arithmetic import slope as slope\n\nassert arithmetic.slope\n",
    "my_package/arithmetic.py": "import torch\nfrom torch import Tensor\n\n\n" + RULE[RULE.index("def slope(") :],
    "my_codec.py": CODEC,
    "conf/ttt/mine.yaml": TTT,
    "conf/codec/mine.yaml": "# bzip2.\n_target_: my_codec.Bzip2\nlevel: 9\n",
    "experiments/first/overlay.yaml": "# First.\ndefaults:\n  - override /ttt: mine\n  - override /codec: mine\n  - _self_\n"
    "name: first\n",
}


def lay(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def at(folder: Path, module: str, *words: str, code: int = 0) -> str:
    """What a command of pgolf prints, started in `folder`."""
    command = [sys.executable, "-m", f"pgolf.{module}", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """A working folder with modules and options of the user's, after a sweep of one job."""
    folder = tmp_path_factory.mktemp("users")
    lay(folder, PLACE)
    words = (*TINY, "limits.train_steps=2", "ttt.chunk_tokens=1024", "hydra.sweep.dir=sweep")
    run(folder, "-m", "experiment=glob(fir*)", "seed=[7]", *words)
    (job,) = (folder / "sweep").glob("*_seed7")
    (folder / "sweep/job").symlink_to(job)
    return folder


def test_a_run_of_the_users_parts_is_planned_as_it_ran(swept):
    kept = record(swept / "sweep/job")
    assert (kept["status"], kept["verdict"]) == ("complete", "consistent")
    assert set(kept["own"]) == {"my_package", "my_package.my_ttt", "my_package.arithmetic", "my_codec"}
    (arm,) = json.loads((swept / "sweep/plan.json").read_text())["arms"]
    assert (arm["arm_sha256"], arm["seeds"]) == (kept["arm_sha256"], [7])
    log = (swept / "sweep/job/config.yaml").read_text()
    assert "_target_: my_codec.Bzip2" in log
    assert next(r for r in kept["receipts"] if r["part"] == "ttt")["alive"]


def test_its_file_alone_gives_the_same_score_where_none_of_the_modules_are(swept, tmp_path):
    python = bare_environment(tmp_path / "bare", NEEDED)
    script, kept = swept / "sweep/job/train_gpt.py", record(swept / "sweep/job")
    words = ("judge", f"ARTIFACT={swept / 'sweep/job/artifact.pgolf'}", f"DATA_PATH={texts_of(script)}")
    done = alone(python, script, tmp_path / "empty", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"val_bpb={kept['evaluate']['val_bpb']:.8f} ")


@pytest.mark.slow
def test_it_is_audited_by_the_package_once_it_is_trusted(swept, tmp_path):
    folder = str(swept / "sweep/job")
    assert "trust=true imports and runs it" in at(swept, "audit", folder, code=2)
    said = at(swept, "audit", folder, "trust=true")
    assert "scoring again: holds" in said
    assert "verdict consistent" in said.splitlines()
    assert "there is no module" in at(tmp_path, "audit", folder, "trust=true", code=2)


@pytest.mark.slow
def test_the_export_shows_the_modules_and_is_built_again_where_they_are(swept, tmp_path):
    said = at(swept, "export", "sweep/job")
    assert "built again from this package it is the same" in said
    for module in ("my_package.my_ttt", "my_package.arithmetic", "my_codec"):
        assert re.search(rf"^{re.escape(module)} +[1-9]", said, re.MULTILINE), said
    elsewhere = at(tmp_path, "export", str(swept / "sweep/job"))
    assert "built again from this package it is no file: my_" in elsewhere


# ---- identity


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The same working folder, for composing in this process."""
    register_experiments()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("my_")]:
        monkeypatch.delitem(sys.modules, name)
    lay(tmp_path, PLACE)
    forget()
    return tmp_path


def forget() -> None:
    own._spec.cache_clear()
    own.for_pgolf.cache_clear()
    invalidate_caches()


def test_the_source_of_every_module_is_in_the_arms_identity(place):
    (before,) = rehearse(["ttt=mine"], sweep=False)
    assert before.config == rehearse(["ttt=mine"], sweep=False)[0].config
    with open(place / "my_package/arithmetic.py", "a", encoding="utf-8") as file:
        file.write("# other\n")
    (after,) = rehearse(["ttt=mine"], sweep=False)
    assert after.config == before.config
    assert after.arm_sha256 != before.arm_sha256
    assert rehearse(["ttt=none"], sweep=False)[0].own == {}


CHANGED = """
import pathlib
import pgolf.run as entry, pgolf.pipeline
pgolf.pipeline.run = lambda job, folder, console: print("ran") or 1.0
entry._require = lambda recipes: pathlib.Path("my_codec.py").write_text(pathlib.Path("my_codec.py").read_text() + "#")
entry.main()
"""


@pytest.mark.slow
def test_a_module_that_changes_after_the_check_stops_the_run(place):
    done = subprocess.run(
        [sys.executable, "-c", CHANGED, "codec=mine"], cwd=place, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 1
    assert done.stderr.startswith("pgolf: this is not the job that was checked")
    assert done.stderr.count("\n") == 1


# ---- what cannot be taken along


def refused(place: Path, source: str | bytes, name: str = "my_bad", target: str = "Bzip2", **files) -> str:
    """What is said of a codec in this module, by the check or by the exporter."""
    lay(place, {f"{name.replace('.', '/')}.py": source, **{k.replace("__", "/"): v for k, v in files.items()}})
    lay(place, {"conf/codec/bad.yaml": f"# Bad.\n_target_: {name}.{target}\nlevel: 9\n"})
    forget()
    with pytest.raises(UserError) as wrong:
        program(rehearse(["codec=bad"], sweep=False)[0].config)
    assert "\n" not in str(wrong.value)
    return str(wrong.value)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import nowhere_at_all", "my_bad cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0", "my_bad cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "my_bad cannot be imported: SystemExit: 3"),
        ("def f(:", "is no Python that can be read"),
    ],
)
def test_a_module_that_fails_to_import_is_one_message_with_its_line(place, line, told):
    said = refused(place, CODEC + f"\n{line}\n")
    assert said.startswith("codec._target_='my_bad.Bzip2': ")
    assert told in said
    assert f"my_bad.py, line {len(CODEC.splitlines()) + 2}" in said


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("from os.path import *", "import * does not say"),
        ("import xml.dom", "import xml.dom: add `as`"),
        ("WEIGHTS = [__file__]", "__file__ leads to files beside the module"),
        ("import importlib.resources as data", "importlib finds code or data by name"),
        ("from pkgutil import get_data", "pkgutil finds code or data by name"),
        ("try:\n    import numpy as np\nexcept ImportError:\n    np = None", "an import under if, try or with"),
        ("def f():\n    global G\n    G = 1", "a global statement"),
        ("F = eval('min')", "eval() finds names in text"),
        ("def f():\n    return globals()", "globals() finds names in text"),
        ("def f(x):\n    return type(x).__qualname__", "__qualname__ is another"),
        ("def __getattr__(name):\n    raise AttributeError(name)", "a module's __getattr__ does not ship"),
        ("def f(x):\n    return dir(errors)", "the module errors is used as a value"),
    ],
)
def test_what_cannot_be_merged_is_one_message_with_its_line(place, line, told):
    assert told in refused(place, CODEC + f"\n{line}\n")


def test_compiled_modules_are_refused_wherever_they_are_imported(place):
    source = CODEC.replace("import bz2\n", "import bz2\nfrom my_parts import fast\n").replace(
        "bz2.compress", "fast.compress"
    )
    said = refused(place, source, my_parts____init__="", **{"my_parts__fast.cpython-311.so": b"\x7fELF"})
    assert "my_parts" in said
    assert refused(place, "", "my_native", **{"my_native.so": b"\x7fELF"}) != ""


def test_the_name_of_a_standard_module_is_refused(place):
    assert "statistics is the name of a standard module" in refused(place, CODEC, "statistics")
    said = refused(
        place, CODEC.replace("import bz2\n", "import bz2\nimport colorsys\n"), **{"colorsys.py": "HUE = 1\n"}
    )
    assert "my_bad imports colorsys" in said
    assert "has the name of that standard module" in said
    done = run(place, "dry=true", code=2)
    assert (
        done.stderr
        == f"pgolf: {place / 'colorsys.py'} has the name of a standard module, which it would replace; give it another name\n"
    )


@pytest.mark.parametrize(
    ("source", "target", "told"),
    [
        (CODEC.replace("Bzip2", "Zstd"), "Zstd", "is named like pgolf.codec.Zstd"),
        (CODEC, "Bzip", "has no such class; must name one of"),
        (
            CODEC.replace("(Base)", ""),
            "Bzip2",
            "is no concrete dataclass below pgolf.codec.Codec",
        ),
        (
            CODEC.replace("class Bzip2", "class words"),
            "words",
            "a component needs a name that means nothing else",
        ),
    ],
)
def test_classes_that_are_no_component_of_ones_own(place, source, target, told):
    assert told in refused(place, source, target=target)


@pytest.mark.slow
def test_relative_imports_and_other_ways_to_write_a_module_ship(place):
    """Compiled, not run: the sweep above runs one of these."""
    body = CODEC.replace(
        "from pgolf import errors", "from pgolf import errors\nfrom .. import factor\nfrom .x.y import Z as _z"
    )
    body = body.replace("(raw, self.level)", "(raw, int(self.level * factor(_z)))")
    lay(
        place,
        {
            "my_deep/__init__.py": "def factor(x):\n    match x:\n        case 1:\n            return 1.0\n    return 2.0\n"
        },
    )
    lay(place, {"my_deep/sub/__init__.py": "\ufeff", "my_deep/sub/x/y.py": "Z = 1\r\n"})
    lay(place, {"my_deep/sub/c.py": body, "conf/codec/deep.yaml": "# D.\n_target_: my_deep.sub.c.Bzip2\nlevel: 1\n"})
    forget()
    (job,) = rehearse(["codec=deep"], sweep=False)
    assert set(job.own) == {"my_deep", "my_deep.sub", "my_deep.sub.c", "my_deep.sub.x.y"}
    made = program(job.config)
    assert re.search(r"^def factor_*\(x\):$", made.source, re.MULTILINE), "pgolf has a name like it"
    compile(made.small(), "train_gpt.py", "exec")


@pytest.mark.slow
def test_a_component_that_reads_validation_files_is_shipped_as_it_is(place):
    """It is the audit's to find: nothing that opens a file is pruned or renamed away."""
    peek = 'def encode(self, raw, itemsize, columns=0):\n        open("data/fineweb_val_000000.bin", "rb").read()\n'
    lay(place, {"my_codec.py": CODEC.replace("def encode(self, raw, itemsize, columns=0):\n", peek)})
    (job,) = rehearse(["codec=mine"], sweep=False)
    small = program(job.config).small()
    (name,) = re.findall(r"(\w+)\('data/fineweb_val_000000\.bin','rb'\)\.read\(\)", small)
    assert name == "open" or f"{name}=open" in small
