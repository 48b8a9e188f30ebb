"""Every command of README.md and docs/, and how it is checked: run where that can be, small; else composed or parsed.

The runs are made small by TINY and stay in this process, with one rank, so that the pages' commands take seconds.
"""

import json
import logging
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from pgolf import pipeline, search
from pgolf import run as entry
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.export.standalone import JUDGE, settings_of
from pgolf.files.events import Events
from pgolf.machine.world import World
from pgolf.show import observers
from pgolf.stages.judge import Evaluation, judge
from tests.command import TINY, environment
from tests.pages import BLOCKS, ROOT
from tests.processes import PATIENCE
from tests.test_data_text import documents

SMALL = ("limits.train_steps=2", *TINY)


class Undrawn:
    """Stands in for the process that draws a report."""

    def __init__(self, folder: Path):
        self.folder = folder

    def finish(self) -> str:
        return ""


def alone(stage: Callable, *given, machine, folder: Path, nodes) -> dict:
    """The stage in this process."""
    events = Events(folder)
    return {"result": stage(World.alone(), *given, events), "fault": events.fault}


def judged(job, corpus, record, nodes, console) -> dict:
    """The evaluation by this package instead of the file that it exported."""
    folder, sealed, code = record.path.parent, record["artifact"]["sha256"], record["code"]["sha256"]
    return judge(
        World.alone(),
        Evaluation(job.recipe, folder / "artifact.pgolf", sealed, corpus.validation, code),
        Events(folder),
    )


class Place:
    """A folder with one tiny run and one tiny sweep of two arms."""

    def __init__(self, folder: Path):
        self.folder = folder
        sweep = ("-m", "seed=three", "quant=int5_gptq,int6_gptq", "ttt=none")
        self.pgolf(*SMALL, "hydra.run.dir=run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(observers, "Drawing", Undrawn)  # one run's page is enough
            self.pgolf(*sweep, *SMALL, "hydra.sweep.dir=sweep")
        self.arms = json.loads((folder / "sweep/summary.json").read_text())["arms"]
        a, b = (f"sweep:{arm['arm_sha256'][:12]}" for arm in self.arms)
        submission = f"sweep/{self.arms[0]['submission']['folder']}"
        self.names = {"RUN": "run", "SWEEP": "sweep", "FOLDER": submission, "A": a, "B": b, "SWEEP:ARM": a}
        self.names |= {"FILE": "run/artifact.pgolf", "NAME": "codec"}

    def pgolf(self, *words: str) -> None:
        """`python -m pgolf.run words`; Hydra's handlers of logging are taken away again."""
        handlers = list(logging.root.handlers)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
            patch.setattr(sys, "argv", ["pgolf.run", *words])
            patch.setattr(entry, "start_importing", lambda: None)
            patch.setattr(pipeline, "launch", alone)
            patch.setattr(pipeline, "evaluated", judged)
            try:
                entry.main()
            finally:
                logging.root.handlers[:] = handlers


def words_of(line: str) -> list[str]:
    """What follows `python -m module`."""
    return shlex.split(line)[3:]


def shared(line: str, place: Place) -> None:
    """The one run."""
    assert json.loads((place.folder / "run/record.json").read_text())["verdict"] == "consistent"


def planned(line: str, place: Place) -> None:
    place.pgolf(*words_of(line))


def swept(line: str, place: Place) -> None:
    assert [[row["seed"] for row in arm["seeds"]] for arm in place.arms] == [[1337, 42, 7]] * 2


def composed(line: str, place: Place) -> None:
    words = [short_words(w) for w in words_of(line)]
    register_experiments()
    assert rehearse([w for w in words if w != "-m"], sweep="-m" in words)


def multirun(line: str, place: Place) -> None:
    """The script says what it would start: every arm dry, then every arm."""
    script, *words = line.split()
    done = subprocess.run([ROOT / script, *words], env={"PYTHON": "echo"}, capture_output=True, text=True)
    dry, real = done.stdout.splitlines()
    assert dry == f"{real} dry=true"
    composed(f"python {real}", place)


def tool(line: str, place: Place, module: str = "", **instead: str) -> None:
    """Another of pgolf's commands, in this process, with our folders for RUN, SWEEP and so on."""
    name = module or shlex.split(line)[2]
    words = [instead.get(word, word) for word in words_of(line)]
    package = (ROOT / name.replace(".", "/")).is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.folder)
        try:
            main = import_module(f"{name}.__main__" if package else name).main
            ended = main([place.names.get(word, word) for word in words])
        except SystemExit as stop:  # an argument parser's own end
            ended = stop.code or 0
    assert ended == 0, line


def named(line: str, place: Place) -> None:
    from pgolf.bench.__main__ import parse

    assert parse([place.names.get(word, word) for word in words_of(line)])[0]


def fetched(line: str, place: Place) -> None:
    from pgolf.data.__main__ import option, overridden

    name, *rest = words_of(line)
    overridden(option(name), rest)


def asked_of_build(line: str, place: Place) -> None:
    from pgolf.data.make import parse, validation

    name, *rest = words_of(line)[1:]
    assert validation(name, parse(rest)) == {"val_docs": 50_000, "val_fraction": None}


def corpus(place: Place) -> None:
    """The reader's own text."""
    folder = place.folder / "corpus"
    if not folder.exists():
        folder.mkdir()
        for i, text in enumerate(documents(300)):
            (folder / f"{'abc'[i % 3]}{i}.txt").write_text(text, encoding="utf-8")
        (folder / "b.txt").write_text("One more document.\n\n\nAnd another.\n", encoding="utf-8")


def with_corpus(line: str, place: Place) -> None:
    """Another of pgolf's commands, or the text of a run, in a folder where the reader's text lies."""
    corpus(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
        if "pgolf.run" not in line:
            return tool(line, place)
        patch.chdir(place.folder)
        register_experiments()
        (job,) = rehearse([short_words(word) for word in words_of(line)], sweep=False)
        assert job.recipe.data.prepare(lambda stage, done: None).validation.tokens > 100


def trained_on_corpus(line: str, place: Place) -> None:
    corpus(place)
    small = [word for word in SMALL if "val_fraction" not in word]
    place.pgolf(*map(short_words, words_of(line)), *small, "data.dev_tokens=1000", "ttt=none", "hydra.run.dir=own")
    assert json.loads((place.folder / "own/record.json").read_text())["verdict"] == "consistent"


def searched(line: str, place: Place) -> None:
    space, fixed = search.divided(search.settings(words_of(line))[1])
    assert rehearse([*(one.first for one in space), *fixed], sweep=False)


def installs(line: str, place: Place) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\[(\w+)\]", line)) <= extras.keys()


def torchrun(line: str, place: Place) -> None:
    from torch.distributed.run import get_args_parser

    parse = get_args_parser().parse_args([w for w in shlex.split(line) if not re.match(r"[A-Z_]+=", w)][1:])
    assert (parse.training_script, parse.nproc_per_node) == ("train_gpt.py", "8")
    read = re.findall(r'"([A-Z_]+)"', (ROOT / "pgolf/export/standalone.py").read_text())
    assert set(re.findall(r"([A-Z_]+)=", line)) <= set(read)


def nothing(line: str, place: Place) -> None:
    """Not here."""


def looped(line: str, place: Place) -> None:
    """The program of the page, with real runs but for its first sweep, which is there and complete when it begins."""
    (program,) = (block.text for block in BLOCKS if block.file == "loop.py")
    (place.folder / "loop.py").write_text(program, encoding="utf-8")
    words = ["seed=1337", *SMALL, "ttt=none"]
    place.pgolf("-m", *words, "hydra.sweep.dir=loop/0")
    asked = [sys.executable, "loop.py", *words]
    done = subprocess.run(asked, cwd=place.folder, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "refused: pgolf: quant.bits=9: must be between 2 and 8\n"
    scores = {
        place: json.loads((folder / "summary.json").read_text())["arms"][0]["seeds"][0]
        for place, folder in ((n, place.folder / f"loop/{n}") for n in (0, 2))
    }
    told, won = json.loads(done.stdout), {n: row["dev_bpb"]["quantized"] for n, row in scores.items()}
    best = 2 if won[2] < won[0] - 0.001 else 0
    assert told["kept"] == (["optim.matrix.lr=0.03"] if best else [])
    assert (told["dev_bpb"], told["val_bpb"]) == (won[best], scores[best]["val_bpb"])
    assert told["difference"] == pytest.approx(scores[best]["val_bpb"] - scores[0]["val_bpb"], abs=1e-7)


def exported(line: str, place: Place) -> None:
    """Its words are those that the file reads."""
    words = words_of(line.replace("train_gpt.py", "-m train_gpt", 1).replace(" …", ""))
    settings_of(words[1:] if words[:1] == [JUDGE] else words)


REAL = (planned, swept, tool, with_corpus, trained_on_corpus, looped)
GPUS, NETWORK, SHELL, RUN_IN = "needs 8 GPUs", "needs the network", "not pgolf's own", "is run by "
COPY = RUN_IN + "the worked example's test"
ALL_PARTS = (  # of docs/component.md, in one run
    "model/activation=mish model/attention=window schedule/warmdown=cosine optim=lion average=lawa qat=partial"
    " quant/scale=power quant/solver=descent codec=deflate ttt=sgd_score_first ttt/temperature=confident ttt/trained=vectors"
)
Check = Callable[[str, Place], None]
TABLE: dict[str, tuple[Check, str]] = {  # command: how it is checked, and why it is not run if it is not
    "python3 -m venv .venv": (nothing, SHELL),
    "source .venv/bin/activate": (nothing, SHELL),
    "nvidia-smi": (nothing, SHELL),
    "export PGOLF_CACHE=/data/pgolf": (nothing, SHELL),
    "pip install -e .": (installs, NETWORK),
    "pip install -e '.[test]'": (installs, NETWORK),
    "pip install -e '.[search]'": (installs, NETWORK),
    "pip install -e '.[slurm]'": (installs, NETWORK),
    "pip install -e '.[ray]'": (installs, NETWORK),
    "python -m pytest -n 2": (nothing, "this is it"),
    "python -m pytest -q tests/test_ttt_bias.py": (nothing, COPY),
    "python -m pgolf.run": (shared, "with a tiny model and two steps"),
    "python -m pgolf.run quant=int5_gptq ttt=none": (swept, "is the first arm of the sweep"),
    "python -m pgolf.run machine.ranks=2 limits.train_seconds=20": (
        composed,
        RUN_IN + "test_run.py, on 1, 2 and 4 ranks",
    ),
    "python -m pgolf.run limits.train_steps=200": (shared, "with two steps"),
    "python -m pgolf.run dry=true": (planned, ""),
    "python -m pgolf.run -m seed=1337,42,7": (composed, "the sweep of two arms is this one twice"),
    "python -m pgolf.run -m seed=three quant=int5_gptq,int6_gptq": (swept, ""),
    "./multirun.sh quant=int5_gptq,int6_gptq": (multirun, "what it starts is the sweep of two arms"),
    "./multirun.sh experiment=pr606_int5_softround": (multirun, GPUS),
    "python -m pgolf.run experiment=pr606_int5_softround scale=laptop": (composed, RUN_IN + "test_experiments.py"),
    "python -m pgolf.run -m experiment=pr1852_prequant_ttt scale=laptop seed=three ttt=pr1852_sibling,prequant_adamw"
    " limits.train_steps=100 limits.train_seconds=1800 limits.eval_seconds=1800": (
        composed,
        "takes twenty minutes; test_ttt_prequant.py runs the one, test_experiments.py the other",
    ),
    "python -m pgolf.run logger=wandb": (composed, RUN_IN + "test_logger.py, which reads the offline files back"),
    "python -m pgolf.run quant=int5_gptq optim.matrix.lr=0.03 dry=true": (planned, ""),
    "python -m pgolf.run quant=int5_gptq optim.matrix.lr=0.03": (composed, "the one before it with dry=true is run"),
    "python -m pgolf.run --help": (nothing, RUN_IN + "test_help.py"),
    "python -m pgolf.run --cfg job": (nothing, RUN_IN + "the overlay's test"),
    "python -m pgolf.run experiment=my_first": (nothing, "the overlay's test composes it"),
    "python -m pgolf.run experiment=my_first quant=int6_gptq": (nothing, "the overlay's test composes it"),
    "python -m pgolf.run experiment=pr606_int5_softround dry=true": (composed, RUN_IN + "test_experiments.py"),
    "python -m pgolf.run experiment=pr606_int5_softround machine.ranks=1 limits.train_steps=20 eval=chunked_1024"
    " ttt=none": (composed, GPUS),
    "python -m pgolf.run experiment=pr606_int5_softround limits.train_seconds=120 eval=chunked_1024 ttt=none": (
        composed,
        GPUS,
    ),
    "python -m pgolf.run -m hydra/launcher=slurm8 hydra.launcher.partition=h100 seed=three"
    " experiment=pr606_int5_softround hydra.sweep.dir=sweeps/int5": (composed, "needs Slurm; tests/engines runs one"),
    "python -m pgolf.run -m hydra/launcher=ray8 hydra.launcher.ray.init.address=auto seed=three"
    " experiment=pr606_int5_softround hydra.sweep.dir=sweeps/ray": (nothing, "needs Ray; tests/engines runs one"),
    "python -m pgolf.run machine.nodes=2 machine.node_rank=0 machine.rendezvous=localhost:29500 machine.ranks=1"
    " machine.device=CPU": (composed, RUN_IN + "test_nodes.py"),
    "python -m pgolf.run machine.nodes=2 machine.node_rank=1 machine.rendezvous=localhost:29500 machine.ranks=1"
    " machine.device=CPU": (composed, RUN_IN + "test_nodes.py"),
    "python -m tests.option_table": (nothing, COPY),
    "python -m pytest -q tests/test_parts.py": (nothing, COPY),
    f"python -m pgolf.run {ALL_PARTS}": (nothing, COPY),
    "python -m pgolf.run ttt=bias": (nothing, COPY),
    "python -m pgolf.run ttt=bias dry=true": (nothing, COPY),
    "python -m pgolf.run ttt=bias ttt.rate=0": (nothing, COPY),
    "python -m pgolf.audit RUN": (nothing, COPY),
    "python -m pgolf.audit RUN full=true": (nothing, COPY + ": all of a tiny text fits the time it has without"),
    "python -m pgolf.audit RUN data.folder=DIR": (nothing, RUN_IN + "test_audit_run.py, with data.cache=DIR"),
    "python -m pgolf.audit FOLDER": (tool, ""),
    "python -m pgolf.audit FOLDER --long": (tool, ""),
    "python -m pgolf.audit --all DIR --page audit.html": (
        partial(tool, DIR="."),
        "is run on the folder that holds a submission",
    ),
    "python -m pgolf.audit --explain 'mistake 20'": (tool, ""),
    "python -m pgolf.artifact FILE": (partial(tool, module="pgolf.artifact"), "is that module's command"),
    "python -m pgolf.ablation SWEEP": (tool, ""),
    "python -m pgolf.ablation SWEEP --by quant": (
        nothing,
        "its arms differ in nothing else",
    ),
    "python -m pgolf.run resume=RUN": (nothing, RUN_IN + "test_resume.py"),
    "python -m pgolf.run resume=RUN machine.ranks=2": (nothing, RUN_IN + "test_resume.py"),
    "python -m pgolf.run limits=long": (composed, "takes hours; test_resume.py stops and resumes a short one"),
    "python -m pgolf.run checkpoint.every_seconds=300 limits.train_steps=20000 limits.train_seconds=86400": (
        composed,
        RUN_IN + "test_resume.py, with fewer steps",
    ),
    "python -m pgolf.run -m seed=three quant=int5_gptq,int6_gptq hydra.sweep.dir=sweeps/bits": (
        composed,
        RUN_IN + "test_sweep.py, with other arms",
    ),
    "python -m pgolf.run -m seed=three quant=int5_gptq,int6_gptq hydra.sweep.dir=sweeps/bits stop_after=2": (
        composed,
        RUN_IN + "test_sweep.py, with other arms",
    ),
    "python -m pgolf.runs": (tool, ""),
    "python -m pgolf.runs --json": (tool, ""),
    "python -m pgolf.runs --json --quiet": (tool, ""),
    "python -m pgolf.run dry=true --quiet": (planned, ""),
    "python loop.py seed=three": (looped, ""),
    "python -m pgolf.runs FOLDER --clean checkpoints": (tool, ""),
    "python -m pgolf.runs FOLDER --clean attempts": (tool, ""),
    "python -m pgolf.run trained=RUN": (nothing, RUN_IN + "test_trained.py"),
    "python -m pgolf.run trained=RUN eval.stride=32": (nothing, RUN_IN + "test_trained.py"),
    "python -m pgolf.compare A B": (tool, ""),
    "python -m pgolf.compare SWEEP:ARM SWEEP:ARM": (tool, ""),
    "python -m pgolf.compare --baselines": (tool, ""),
    "python -m pgolf.compare 2026-03-25_ValCalib_GPTQ_XSA_BigramHash3072 FOLDER": (tool, ""),
    "python -m pgolf.report FOLDER": (partial(tool, FOLDER="RUN"), "is run on a run's folder"),
    "python -m pgolf.report SWEEP": (tool, ""),
    "python -m pgolf.export RUN": (tool, ""),
    "python -m pgolf.export RUN --unpack DIR": (tool, ""),
    "python -m pgolf.submission FOLDER --into DIR": (
        nothing,
        RUN_IN + "test_submission.py, on a sweep that has a name",
    ),
    "python -m pgolf.bench NAME": (named, RUN_IN + "test_bench.py"),
    "python -m pgolf.bench gpu json=gpu.json": (named, "needs a GPU"),
    "python -m pgolf.bench gpu device=cpu size=small": (named, RUN_IN + "test_bench.py"),
    "python -m pgolf.bench scaling size=full picture=scaling.png": (named, RUN_IN + "test_bench.py"),
    "python -m pgolf.doctor": (composed, RUN_IN + "test_doctor.py"),
    "python -m pgolf.doctor experiment=pr606_int5_softround": (
        composed,
        RUN_IN + "test_doctor.py; this one needs 8 GPUs",
    ),
    "python -m pgolf.data fineweb_sp1024 train_shards=80": (fetched, NETWORK),
    "python -m pgolf.data look stdlib": (nothing, "others look at smaller sets"),
    "pip install 'pgolf[parquet]'": (installs, NETWORK),
    "python -m pgolf.run data=text data.files=corpus/*.txt data.vocab_size=512": (trained_on_corpus, ""),
    "python -m pgolf.run data=text 'data.files=[corpus/a*.txt,corpus/b.txt]' data.vocab_size=512 dry=true": (
        with_corpus,
        "",
    ),
    "python -m pgolf.run data=text 'data.files=corpus/[a-c]*.txt' 'data.document_separator=\\n\\n\\n' data.vocab_size=512"
    " dry=true": (with_corpus, ""),
    "python -m pgolf.data build mine docs='corpus/*.txt' vocab_size=512 val_docs=20 out=mine workers=1": (
        with_corpus,
        "",
    ),
    "python -m pgolf.data look mine": (with_corpus, ""),
    "python -m pgolf.data look mine --json": (with_corpus, ""),
    "python -m pgolf.data look mine out=mine.html": (with_corpus, ""),
    "python -m pgolf.run data=built data.folder=mine data.vocab_size=512 dry=true": (with_corpus, ""),
    "python -m pgolf.data build words docs='corpus/*.txt' vocab_size=400 model_type=unigram val_docs=20 out=words"
    " workers=1": (with_corpus, ""),
    "python -m pgolf.data build again docs='corpus/*.txt' tokenizer=mine/tokenizer.model val_docs=20 out=again workers=1": (
        with_corpus,
        "",
    ),
    "python -m pgolf.data build caps docs='corpus/*.txt' vocab_size=512 transform=caseops val_docs=20 out=caps"
    " workers=1": (with_corpus, ""),
    "python -m pgolf.data fineweb_caseops train_shards=1": (fetched, NETWORK),
    "python -m pgolf.data build fineweb_caseops docs=docs_selected.jsonl tokenizer=fineweb_8192_caseops.model"
    " transform=caseops": (asked_of_build, NETWORK + ": the document file has 48 GB"),
    "python -m pgolf.run data/loader=documents dry=true": (planned, ""),
    "python -m pgolf.search --help": (tool, ""),
    "python -m pgolf.search trials=20 'optim.matrix.lr=tag(log,interval(0.01,0.1))' quant=int5_gptq,int6_gptq": (
        searched,
        RUN_IN + "test_search.py",
    ),
    "SEED=1337 DATA_PATH=/data/pgolf/fineweb_sp1024 TOKENIZER_PATH=/data/pgolf/fineweb_sp1024/fineweb_1024_bpe.model"
    " torchrun --standalone --nproc_per_node=8 train_gpt.py": (
        torchrun,
        GPUS + "; the test of the export runs such a file",
    ),
    "SEED=1337 DATA_PATH=/data/pgolf/fineweb_sp1024 torchrun --standalone --nproc_per_node=8 train_gpt.py judge"
    " ARTIFACT=artifact.pgolf": (torchrun, GPUS + "; test_container.py runs such a line"),
    "python -m tests.chaos kills=200": (nothing, RUN_IN + "test_chaos.py, with fewer"),
    "python -m tests.chaos kills=40 subjects=run,sweep seed=7 counts=chaos.json": (nothing, RUN_IN + "test_chaos.py"),
    "python train_gpt.py": (exported, RUN_IN + "test_export.py"),
    "python train_gpt.py judge …": (exported, RUN_IN + "test_export.py"),
    "python train_gpt.py judge ARTIFACT=artifact.pgolf": (exported, RUN_IN + "test_export.py"),
}
