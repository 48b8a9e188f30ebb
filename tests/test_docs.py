"""README.md and docs/: every command runs or parses, what is named exists, errors read as printed, the example works."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from pgolf import run as entry
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.machine.outlet import outlet
from tests.command import environment, only
from tests.docs_table import ALL_PARTS, REAL, SMALL, TABLE, Place, words_of
from tests.pages import BLOCKS, EXAMPLE, HEADS, PAGES, ROOT, Block, commands, spoken, transcripts
from tests.processes import PATIENCE

FILE = re.compile(r"(?:[\w<>.*-]+/)*[\w<>.*-]+\.(?:py|yaml|md|jsonl?|log|txt|pgolf|html|sh|toml)|(?:[\w<>*.-]+/)+")
OTHERS = {  # words of other commands, of the worked example, and with placeholders
    *(
        "full=true",
        "trust=true",
        "study=NAME",
        "train_shards=1",
        "trained=RUN",
        "resume=RUN",
        "trained=SWEEP",
        "stop_after=N",
        "group=option",
        "only=step",
        "group.key=value",
        "data.folder=...",
        "ttt=bias",
        "ttt.warm=true",
        "ttt=mine",
        "hydra.searchpath=[DIR]",
    ),
    *("machine.ranks=N", "limits.train_steps=N", "-m seed=three experiment=FULL,WITHOUT_EMA,WITHOUT_TTT"),
    *("hydra.run.dir=FOLDER", "hydra.sweep.dir=FOLDER", "<group>=<name>", "experiment=<name>", "experiment="),
}


def test_every_command_has_its_row_and_every_row_its_command():
    refused, found = {line for line, _ in transcripts()}, set(commands())
    assert sorted(found - {*TABLE} - refused) == [], "on a page, not in the table"
    assert sorted({*TABLE} - found) == [], "in the table, on no page"
    assert [line for line, (check, reason) in TABLE.items() if not reason and check not in REAL] == []


@pytest.mark.slow
def test_commands_do_what_their_pages_say_and_leave_what_is_named(tmp_path):
    """One test, because all of it shares one run and one sweep."""
    torch.set_num_threads(1)
    place = Place(tmp_path)
    for line, (check, _) in TABLE.items():
        check(line, place)
    names = {name for page in PAGES for name in spoken(page) if FILE.fullmatch(name)}
    assert sorted(name for name in names if not (in_repository(name) or left(place, name))) == []


def in_repository(name: str) -> bool:
    """Here, beside a page, or written by the reader of one."""
    pattern = re.sub(r"<[^>]*>", "*", name).rstrip("/")
    return any(any(folder.glob(pattern)) for folder in (ROOT, ROOT / "docs")) or name in {b.file for b in BLOCKS}


ELSEWHERE = (
    "sweeps/*_*",
    "sweeps",
    "runs",
    "attempts",
    "gpu.json",
)  # of dated runs, of dead ones, of a machine with a GPU


def left(place: Place, name: str) -> bool:
    """Left by the run, the sweep or the submission, or one of their folders."""
    pattern = re.sub(r"<[^>]*>", "*", name).rstrip("/")
    folders = [place.folder, *(place.folder / place.names[key] for key in ("RUN", "SWEEP", "FOLDER"))]
    return pattern in ELSEWHERE or any(any(folder.glob(pattern)) for folder in folders)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", PAGES[page])
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.slow
def test_words_in_the_text_compose():
    """Every `group=option`, every `group.key=value` and every dotted key."""
    register_experiments()
    codes = {code for page in PAGES for code in spoken(page) if not code.startswith(HEADS)}
    for code in sorted(c for c in codes - OTHERS if re.fullmatch(r"(-m )?([a-z][\w./]*=[^=…]+ ?)+", c)):
        words = shlex.split(code.removeprefix("-m "))
        if not all(known_option(word) for word in words):
            assert rehearse([short_words(word) for word in words], sweep=True), code
    config = OmegaConf.create(rehearse([], sweep=False)[0].config)
    keys = {c for c in codes if re.fullmatch(r"[a-z]+(\.[a-z_]+)+", c) and c.split(".")[0] in config}
    assert [key for key in keys if key.rpartition(".")[2] not in OmegaConf.select(config, key.rpartition(".")[0])] == []


def known_option(word: str) -> bool:
    """`group=option` with a file; that all of those compose is for other tests."""
    group, _, option = word.partition("=")
    return any(p.exists() for p in (ROOT / f"conf/{group}/{option}.yaml", ROOT / f"{group}s/{option}/overlay.yaml"))


@pytest.mark.parametrize(("line", "output"), transcripts(), ids=lambda text: text.removeprefix("python -m pgolf.")[:40])
def test_errors_read_as_printed(line, output, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["pgolf.run", *words_of(line)])
    with pytest.raises(SystemExit) as end:
        entry.main()
    assert end.value.code == 2
    assert outlet(2).drain(60.0) is None
    assert capfd.readouterr().err.strip() == output


def copied(folder: Path, *blocks: Block) -> Path:
    """A checkout with the files of `blocks` added."""
    copy = folder / "checkout"
    for name in ("pgolf", "conf", "experiments", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    for block in blocks:
        path = copy / block.file
        assert not path.exists(), f"{block.file} is a new file"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(block.text, encoding="utf-8")
    return copy


def started(copy: Path, module: str, *words: str) -> subprocess.Popen:
    env = environment() | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    ask = [sys.executable, "-m", module, *words]
    return subprocess.Popen(ask, cwd=copy, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen, code: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, said
    return said


def in_copy(copy: Path, module: str, *words: str, code: int = 0) -> str:
    with started(copy, module, *words) as process:
        return finished(process, code)


def test_the_overlay_composes(tmp_path):
    copy = copied(tmp_path, *(b for b in BLOCKS if b.file.endswith("overlay.yaml")))
    for bits, words in ((5, ()), (6, ("quant=int6_gptq",))):
        said = in_copy(copy, "pgolf.run", "experiment=my_first", *words, "--cfg", "job")
        assert f"\n  bits: {bits}\n" in said
        assert "\nname: my_first\n" in said


PARTS_SMALL = (
    *("limits.train_steps=8", "average.every=1", "model.attention.size=16"),
    *("ttt.chunk_tokens=8192", "ttt.sequence_length=128", "ttt.temperature.above=0.0"),
)


@pytest.mark.slow
def test_a_part_of_every_kind_works(tmp_path):
    """Their files pasted into a checkout: what is forgotten is named, their own tests pass, and one run has them all."""
    blocks = [b for b in BLOCKS if b.page == EXAMPLE and b.file]
    copy, tests = copied(tmp_path, *blocks), sorted(b.file for b in blocks if b.file.startswith("tests/"))
    assert "python -m tests.option_table writes it" in in_copy(
        copy, "pytest", "-q", "tests/test_parts.py", "-k", "readme", code=1
    )
    in_copy(copy, "tests.option_table")
    with started(copy, "pytest", "-q", "tests/test_parts.py", *tests) as own:
        words = [*ALL_PARTS.split(), *(w for w in SMALL if not w.startswith(("quant.solver", "limits"))), *PARTS_SMALL]
        assert "verdict=consistent" in in_copy(copy, "pgolf.run", *words).splitlines()[-1]
        assert "failed" not in finished(own)
    assert "deflate" in in_copy(copy, "pgolf.artifact", only(copy, "runs/*/artifact.pgolf").as_posix())


@pytest.mark.slow
def test_the_worked_example_works(tmp_path):
    """Its files pasted into a checkout: its own test, a run by name, the audit, the export and its error message."""
    copy = copied(tmp_path, *(b for b in BLOCKS if b.page == EXAMPLE and b.file))
    with started(copy, "pytest", "-q", "tests/test_ttt_bias.py") as own:
        assert "verdict=consistent" in in_copy(copy, "pgolf.run", "ttt=bias", *SMALL).splitlines()[-1]
        assert "3 passed" in finished(own)
    folder = only(copy, "runs/*").as_posix()
    with started(copy, "pgolf.audit", folder) as audit:
        assert "pgolf.ttt.bias " in in_copy(copy, "pgolf.export", folder)
        assert "ttt=Bias" in in_copy(copy, "pgolf.run", "ttt=bias", "dry=true")
        for line, message in transcripts(example=True):
            assert in_copy(copy, "pgolf.run", *words_of(line), code=2).strip() == message
        assert "verdict consistent" in finished(audit).splitlines()
