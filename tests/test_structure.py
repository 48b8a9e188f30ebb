"""Where modules stand. The layers themselves are a contract of import-linter in pyproject.toml, run by `lint-imports`."""

import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

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
    assert len(COMMANDS) + len(PAGES) <= 12
    for name in COMMANDS:
        assert '__name__ == "__main__"' in (ROOT / f"{name}.py").read_text(encoding="utf-8"), f"{name} is no command"


@pytest.mark.parametrize("imported", ["pgolf.export.standalone", "pgolf.stages.judge"])
def test_what_ships_brings_nothing_of_hydra_with_it(imported):
    code = (
        f"import sys, {imported}; print([m for m in sys.modules if m.split('.')[0] in ('hydra', 'omegaconf', 'wandb')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
