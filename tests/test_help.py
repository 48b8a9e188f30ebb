"""`--help`, tab completion, and the one line that every option has."""

import os
import re
import subprocess
import sys

import pytest

from pgolf.config.help import GROUP_LINE, first_comment, help_text
from pgolf.config.places import beside_or_inside, overlays
from tests.command import environment, run

CONF = beside_or_inside("conf")
OPTIONS = sorted(CONF.rglob("*.yaml"))


@pytest.mark.parametrize("file", [*OPTIONS, *overlays().values()], ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_every_option_says_what_it_is_in_one_line(file):
    line = first_comment(file)
    assert re.fullmatch(r"\S.{8,88}\.", line), line
    assert not line.startswith(("@", "_", "-")), line


def test_help_has_every_group_option_and_experiment(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")  # wide enough that nothing wraps
    page = run(tmp_path, "--help").stdout
    for file in OPTIONS:
        group = str(file.parent.relative_to(CONF))
        if group != "." and not group.startswith("scale/"):
            assert re.search(rf"^{group}(: .+)?$", page, re.MULTILINE), group
            assert re.search(rf"^ [ *]{file.stem} +{re.escape(first_comment(file)[:40])}", page, re.MULTILINE), file
    for name, file in overlays().items():
        assert re.search(rf"^  {name} +{re.escape(first_comment(file))}$", page, re.MULTILINE)
    assert "train, quantise, pack" in page
    assert max(map(len, page.splitlines())) <= 120


def test_every_group_says_what_it_decides_and_has_its_default():
    for group, default, said in GROUP_LINE.findall((CONF / "config.yaml").read_text()):
        if not group.startswith("hydra/"):
            assert said, group
            assert default == "null" or f"\n *{default} " in help_text([group])


def test_help_of_some_groups_is_only_these():
    page = help_text(["codec", "quant/fit"])
    assert [line for line in page.splitlines() if re.match(r"\S", line)] == [
        "quant/fit: a size to fill; null takes what comes",
        "codec: how the symbols are coded",
    ]


def test_long_lines_hang_under_their_option_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_text(["quant"]).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(" " * 28) for line in lines)


def completed(folder, typed: str) -> list[str]:
    """What bash offers when TAB is pressed behind `typed`."""
    words = f"COMP_LINE='{typed}'; COMP_WORDS=({typed}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))"
    script = f'eval "$({sys.executable} -m pgolf.run -sc install=bash)"; {words}; _pgolf; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(not os.path.exists("/bin/bash"), reason="needs bash")
def test_tab_completes_options_experiments_and_keys(tmp_path):
    python = f"{sys.executable} -m pgolf.run"
    assert {"quant=int5_gptq", "quant=int5_round"} <= set(completed(tmp_path, f"{python} -m quant=int5"))
    assert completed(tmp_path, f"{python} experiment=pr606") == ["experiment=pr606_int5_softround"]
    assert completed(tmp_path, f"{python} quant.bi") == ["quant.bits="]
    assert completed(tmp_path, "python -m pip ins") == []


def test_hydras_own_questions_are_answered(tmp_path):
    assert "\nquant:\n" in run(tmp_path, "experiment=pr606_int5_softround", "--cfg", "job").stdout
    assert "experiments://" in run(tmp_path, "--info", "searchpath").stdout
    assert list(tmp_path.iterdir()) == []
