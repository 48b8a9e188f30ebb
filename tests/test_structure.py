"""Where modules stand. The layers themselves are a contract of import-linter in pyproject.toml, run by `lint-imports`."""

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import FunctionType

import grimp
import pytest

import pgolf

ROOT = Path(pgolf.__file__).parent
PAGES = {"errors", "pipeline", "recipe"}
COMMANDS = sorted({path.stem for path in ROOT.glob("*.py")} - PAGES - {"__init__"})


def test_no_module_imports_itself_by_way_of_others():
    graph = grimp.build_graph("pgolf", exclude_type_checking_imports=True, cache_dir=None)
    TopologicalSorter({m: graph.find_modules_directly_imported_by(m) for m in graph.modules}).prepare()


def test_what_lies_loose_is_a_page_of_the_pipeline_or_a_command():
    assert len(COMMANDS) + len(PAGES) < 12
    for name in COMMANDS:
        assert '__name__ == "__main__"' in (ROOT / f"{name}.py").read_text(encoding="utf-8"), f"{name} is no command"


@pytest.mark.parametrize("imported", ["pgolf.export.standalone", "pgolf.stages.judge"])
def test_what_ships_brings_nothing_of_hydra_with_it(imported):
    code = (
        f"import sys, {imported}; print([m for m in sys.modules if m.split('.')[0] in ('hydra', 'omegaconf', 'wandb')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def described(function) -> bool:
    """Documented, or nameless, or called by the name that another library gives it."""
    name = function.__name__
    return bool(function.__doc__) or name == "<lambda>" or name == "forward" or name.startswith(("_", "visit_"))


def own(module) -> list[tuple[str, type | FunctionType]]:
    """The public classes and functions that a module defines."""
    made = ((n, v) for n, v in vars(module).items() if isinstance(v, type | FunctionType) and not n.startswith("_"))
    return [(name, value) for name, value in made if value.__module__ == module.__name__]


def undescribed(module) -> Iterator[str]:
    for name, value in own(module):
        if isinstance(value, FunctionType):
            if not described(value):
                yield f"{module.__name__}.{name}"
            continue
        if not value.__dict__.get("__doc__") or value.__doc__.startswith(f"{name}("):
            yield f"{module.__name__}.{name}"
        for method, found in vars(value).items():
            function = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
            inherited = any(method in vars(base) for base in value.__mro__[1:])
            if isinstance(function, FunctionType) and not inherited and not described(function):
                yield f"{module.__name__}.{name}.{method}"


def test_everything_public_has_a_docstring():
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    names = [m.name for m in pkgutil.walk_packages(pgolf.__path__, "pgolf.") if not m.name.endswith("__main__")]
    assert [bare for name in names for bare in undescribed(importlib.import_module(name))] == []
