"""The exported file: the artifact and score of the package, from the file alone, where nothing of pgolf is installed."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pgolf
from pgolf.config.compose import beside_or_inside, register_experiments, rehearse
from pgolf.errors import UserError
from pgolf.export import code, standalone
from pgolf.export.__main__ import main
from pgolf.export.program import Program
from pgolf.files.events import Events
from pgolf.machine.world import World
from pgolf.stages.judge import Evaluation, judge
from pgolf.stages.train import Training, train
from tests import programs
from tests.bare import bare_environment, can_import
from tests.command import TINY, environment, only, record, run
from tests.processes import PATIENCE
from tests.small import IN_OTHERS, SYSTEMS, small

NEEDED = ("torch", "numpy", "sentencepiece", "zstandard")
ABSENT = ("pgolf", "hydra", "omegaconf", "wandb", "rich", "scipy", "huggingface_hub", "constriction", "brotli", "yaml")
STEPS = ("limits.train_steps=2", "hydra.run.dir=run")
SEED = 7  # not the one that an exported file takes by itself
SCORE = re.compile(r"^val_loss=(\S+) val_bpb=(\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """A Python that has what the default's file needs and nothing else."""
    return bare_environment(tmp_path_factory.mktemp("bare"), NEEDED)


@pytest.fixture(scope="module")
def python_and_codecs(tmp_path_factory) -> Path:
    """The same with what some systems' artifacts are decoded by."""
    return bare_environment(tmp_path_factory.mktemp("codecs"), (*NEEDED, "brotli", "constriction"))


@pytest.fixture(scope="module")
def one_run(tmp_path_factory) -> Path:
    return packaged(tmp_path_factory.mktemp("one"), f"seed={SEED}")


def packaged(folder: Path, *words: str) -> Path:
    run(folder, *TINY, *STEPS, *words)
    return folder / "run"


def texts_of(script: Path) -> str:
    """The folder of the tests' corpus that has the files which a script names."""
    names = code.unpack(script.read_bytes()).recipe["texts"]["validation"]["sha256"]
    for path in Path(environment()["PGOLF_CACHE"]).glob("*/*val*.bin"):
        if hashlib.sha256(path.read_bytes()).hexdigest() in names:
            return str(path.parent)
    raise AssertionError("no such text")


def alone(python: Path, script: Path, folder: Path, *words: str, ranks: int = 1, off: bool = False, **settings: str):
    """`script` copied into an empty folder and started there: by itself, or by torchrun; with the network off if asked."""
    folder.mkdir(exist_ok=True)
    (folder / "train_gpt.py").write_bytes(script.read_bytes())
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
    env = {k: v for k, v in environment().items() if not k.startswith(("PYTHON", "PGOLF"))}
    env |= {"PYTHONDONTWRITEBYTECODE": "1", "THREADS": "1"} | settings
    command = [*(["unshare", "-rn"] if off else []), python, *torchrun, "train_gpt.py", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=PATIENCE)


IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}  # Python then says on stderr what is imported


def no_compiler(imported: str) -> None:
    """Nothing was compiled, and torch's compiler, two seconds of every process, was not loaded."""
    assert re.search(r"\| +torch\._C$", imported, re.MULTILINE)
    assert not re.search(r"\| +torch\._dynamo$", imported, re.MULTILINE)


def same(folder: Path, made: Path, shown: str) -> None:
    """A file's artifact and score are those of the package's run in `folder`, and its log was shown, each line once."""
    ours = record(folder)
    assert hashlib.sha256((made / "artifact.pgolf").read_bytes()).hexdigest() == ours["artifact"]["sha256"]
    lines = (made / "train.log").read_text().splitlines()
    stated = f"val_loss={ours['evaluate']['val_loss']:.8f} val_bpb={ours['evaluate']['val_bpb']:.8f}"
    named = f"code_sha256={ours['code']['sha256']} code_bytes={ours['code']['bytes']}"
    assert stated in lines
    assert all(lines[i].endswith(named) for i in (0, -1))
    assert "rank(s)" in lines[1]
    assert f"verdict   {ours['verdict']}" in lines
    assert [line for line in shown.splitlines() if line in lines] == lines, "every line once, by rank 0"


def test_the_bare_environment_is_bare(python):
    assert can_import(python, [*NEEDED, *ABSENT]) == set(NEEDED)


# ---- the same numbers


def test_alone_it_gives_the_artifact_and_the_score_of_the_package_and_needs_no_network(one_run, python, tmp_path):
    script, texts = one_run / "train_gpt.py", texts_of(one_run / "train_gpt.py")
    done = alone(python, script, tmp_path / "empty", off=True, SEED=str(SEED), DATA_PATH=texts, **IMPORTS)
    assert done.returncode == 0, done.stderr
    no_compiler(done.stderr)
    same(one_run, tmp_path / "empty" / f"seed{SEED}", done.stdout)


def test_the_ranks_that_judged_ran_the_file_that_was_weighed(one_run):
    kept = record(one_run)
    assert kept["evaluate"]["code_sha256"] == kept["code"]["sha256"]
    assert kept["code"]["sha256"] == hashlib.sha256((one_run / "train_gpt.py").read_bytes()).hexdigest()


@pytest.mark.slow
def test_two_ranks_by_torchrun_are_two_ranks_of_the_package(python, tmp_path):
    folder = packaged(tmp_path, "machine.ranks=2")
    texts = texts_of(folder / "train_gpt.py")
    done = alone(python, folder / "train_gpt.py", tmp_path / "empty", ranks=2, DATA_PATH=texts)
    assert done.returncode == 0, done.stderr
    same(folder, tmp_path / "empty" / "seed1337", done.stdout)


@pytest.mark.parametrize(
    "name", ["pr606_int5_softround", *(pytest.param(s, marks=pytest.mark.slow) for s in SYSTEMS if "pr606" not in s)]
)
def test_every_system_is_the_same_from_its_file(name, python_and_codecs, tmp_path, monkeypatch):
    """Trained and judged by the package in this process, and by the file: equal artifacts, equal scores."""
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    register_experiments()
    torch.set_num_threads(1)
    (job,) = rehearse(small(name), sweep=False)
    recipe, world = job.recipe, World.alone()
    corpus = recipe.data.prepare(lambda what, done: None)
    made = code.script(job.config, corpus)
    finetuning, ours = recipe.ttt.finetuning(corpus.validation), tmp_path / "ours"
    ours.mkdir()
    trained = train(world, Training(recipe, corpus.training, finetuning, made.size, ours), Events(None))
    sealed = trained["artifact"]["sha256"]
    judged = judge(world, Evaluation(recipe, ours / "artifact.pgolf", sealed, corpus.validation, ""), Events(None))
    plausible(recipe, trained, judged, corpus.validation.tokens)

    (tmp_path / "train_gpt.py").write_bytes(made.data)
    texts = str(Path(corpus.validation.paths[0]).parent)
    done = alone(python_and_codecs, tmp_path / "train_gpt.py", tmp_path / "alone", DATA_PATH=texts, **IMPORTS)
    assert done.returncode == 0, done.stderr
    no_compiler(done.stderr)
    theirs = (tmp_path / "alone/seed1337/artifact.pgolf").read_bytes()
    assert hashlib.sha256(theirs).hexdigest() == sealed
    stated = (f"{judged['val_loss']:.8f}", f"{judged['val_bpb']:.8f}")
    assert SCORE.findall(done.stdout) == [stated]


def plausible(recipe, trained: dict, judged: dict, tokens: int) -> None:
    """Every part of a system was at work, and every target scored."""
    assert judged["tokens"] == tokens - 1
    assert judged["val_bpb"] < 6
    receipts = trained["receipts"] + judged["receipts"]
    assert all(receipt["alive"] for receipt in receipts), receipts
    parts = {receipt["part"].split(".")[0] for receipt in receipts}
    for group, idle in (("qat", "NoQAT"), ("average", "NoAverage"), ("ttt", "NoTTT")):
        assert (group in parts) == (type(getattr(recipe, group)).__name__ != idle)
    assert (trained["train"]["validation_tokens"] > 0) == (not recipe.ttt.legal)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_whole_matrix(name, ranks, python_and_codecs, tmp_path):
    """By the command line, which judges by the file, and by the file alone."""
    run(tmp_path, *small(name), f"machine.ranks={ranks}", "hydra.run.dir=run")
    script = tmp_path / "run/train_gpt.py"
    texts = texts_of(script)
    done = alone(python_and_codecs, script, tmp_path / "alone", ranks=ranks, DATA_PATH=texts)
    assert done.returncode == 0, done.stderr
    same(tmp_path / "run", tmp_path / "alone/seed1337", done.stdout)


@pytest.mark.slow
def test_the_unpacked_source_runs_and_makes_the_same_artifact(one_run, python, tmp_path):
    assert main([str(one_run), "--unpack", str(tmp_path / "source")]) == 0
    env = environment() | {"SEED": str(SEED), "THREADS": "1", "DATA_PATH": texts_of(one_run / "train_gpt.py")}
    subprocess.run([python, "train_gpt.py"], cwd=tmp_path / "source", check=True, env=env, timeout=PATIENCE)
    made = tmp_path / "source" / f"seed{SEED}" / "artifact.pgolf"
    assert made.read_bytes() == (one_run / "artifact.pgolf").read_bytes()


# ---- judging alone, and what can be wrong


def test_a_sealed_artifact_is_judged_again_with_the_network_off(one_run, python, tmp_path):
    texts, kept = texts_of(one_run / "train_gpt.py"), record(one_run)
    words = ("judge", f"ARTIFACT={one_run / 'artifact.pgolf'}", f"DATA_PATH={texts}")
    done = alone(python, one_run / "train_gpt.py", tmp_path / "empty", *words, off=True)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == f"val_bpb={kept['evaluate']['val_bpb']:.8f} artifact_sha256={kept['artifact']['sha256']}"
    assert os.listdir(tmp_path / "empty") == ["train_gpt.py"], "a judge leaves nothing"


def wrong(texts: str, artifact: Path) -> dict[str, tuple[list[str], str]]:
    """Words that cannot be used, and what is said of them."""
    data = f"DATA_PATH={texts}"
    return {
        "no tokenizer": ([data, "TOKENIZER_PATH=nope.model"], "nope.model: is not there; TOKENIZER_PATH=..."),
        "large seed": (["SEED=99999999999", data], "SEED='99999999999': must be a whole number below"),
        "threads": (["THREADS=two", data], "THREADS='two': must be a whole number"),
        "device": (["DEVICE=tpu", data], "DEVICE='tpu': must be auto, cpu or cuda"),
        "gpu": (["DEVICE=cuda", data], "needs a GPU for every rank"),
        "word": (["--steps"], "usage: train_gpt.py"),
        "artifact": (["judge", data, "ARTIFACT=nope"], "nope: cannot be read"),
        "code": (["judge", data, f"ARTIFACT={artifact}", f"CODE_SHA256={'0' * 64}"], "was weighed: it was changed"),
        "hash": (["judge", data, f"ARTIFACT={artifact}", f"ARTIFACT_SHA256={'0' * 64}"], "was sealed"),
        "not an artifact": (["judge", data, f"ARTIFACT={texts}/tokenizer.model"], "magic: this is not a pgolf"),
    }


def test_mistakes_are_told_by_what_is_exported(one_run, tmp_path, monkeypatch):
    """By the entry itself, in this process: it is what the file runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(standalone, "require_alone", lambda: None)
    script = one_run / "train_gpt.py"
    for name, (words, told) in wrong(texts_of(script), one_run / "artifact.pgolf").items():
        with pytest.raises(UserError) as said:
            standalone.start(code.unpack(script.read_bytes()).recipe, str(script), words)
        assert told in str(said.value), name
        assert "\n" not in str(said.value), name


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "data/stdlib: is not there; DATA_PATH=... says where it is"),
        ({"SEED": "abc"}, "SEED='abc': must be a whole number"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(one_run, python, tmp_path, settings, told):
    done = alone(python, one_run / "train_gpt.py", tmp_path / "empty", **settings)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith(f"train_gpt.py: {told}")
    assert done.stderr.count("\n") == 1


def copied(texts: str, folder: Path, name: str, change) -> str:
    """The texts in a new folder with one file changed."""
    shutil.copytree(texts, folder)
    (path,) = folder.glob(name)
    path.write_bytes(change(path.read_bytes()))
    return str(folder)


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("*val*.bin", lambda data: data[:2000] + bytes([data[2000] ^ 1]) + data[2001:], "sha256"),
        ("*.model", lambda data: data[:-1] + b"x", "sha256"),
    ],
)
def test_another_text_or_vocabulary_is_refused(one_run, python, tmp_path, name, change, told):
    texts = copied(texts_of(one_run / "train_gpt.py"), tmp_path / "texts", name, change)
    words = ("judge", f"ARTIFACT={one_run / 'artifact.pgolf'}", f"DATA_PATH={texts}")
    done = alone(python, one_run / "train_gpt.py", tmp_path / "empty", *words)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


FAULT = """
import sys
if sys.argv[1:2] == ["judge"] or "train_gpt.py" in sys.argv[:1]:
    import sentencepiece
    def fail(self, *args, **kwargs):
        raise ZeroDivisionError("the tokenizer is on fire")
    sentencepiece.SentencePieceProcessor.decode = fail
    sentencepiece.SentencePieceProcessor.DecodeIds = fail
    sentencepiece.SentencePieceProcessor.id_to_piece = fail
    sentencepiece.SentencePieceProcessor.IdToPiece = fail
"""


@pytest.mark.slow
def test_a_rank_that_dies_in_the_file_shows_its_own_traceback_with_its_source(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    done = run(tmp_path, *TINY, "limits.train_steps=2", "machine.ranks=2", code=1)
    assert re.match(r"pgolf: rank \d failed\.", done.stderr)
    assert done.stderr.count("Traceback") == 1
    assert "ZeroDivisionError: the tokenizer is on fire" in done.stderr
    where = re.search(r'File "packed", line \d+, in .*\n +(.+)', done.stderr)
    assert where, "the line of the source that ran"
    folder = only(tmp_path, "runs/*")
    assert where.group(1) in code.unpack((folder / "train_gpt.py").read_bytes()).modules["program"]
    assert record(folder)["status"] == "failed"


CHANGED = """
import pgolf.pipeline as pipeline
ask = pipeline.launch_program
def launch_program(command, machine, folder, nodes):
    with open(folder / "train_gpt.py", "ab") as file:
        file.write(b"# and more")
    return ask(command, machine, folder)
pipeline.launch_program = launch_program
from pgolf.run import main
main()
"""


@pytest.mark.slow
def test_a_file_that_was_changed_after_weighing_judges_nothing(tmp_path):
    started = [sys.executable, "-c", CHANGED, *TINY, "limits.train_steps=2", "hydra.run.dir=run"]
    done = subprocess.run(started, cwd=tmp_path, capture_output=True, text=True, env=environment(), timeout=PATIENCE)
    assert done.returncode == 1
    assert "was weighed: it was changed" in done.stderr
    kept = record(tmp_path / "run")
    assert (kept["status"], kept["evaluate"]) == ("failed", None)


def test_beside_the_package_it_refuses_to_run(one_run, tmp_path):
    """Nothing of pgolf may be imported where the file judges."""
    (tmp_path / "train_gpt.py").write_bytes((one_run / "train_gpt.py").read_bytes())
    source = "import pgolf.errors, runpy; runpy.run_path('train_gpt.py', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", source], cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert done.returncode == 1
    assert "this file runs without the package pgolf" in done.stderr


# ---- what the file is


def test_it_holds_nothing_of_where_it_was_made(one_run, tmp_path):
    """Another cache, another number of ranks and threads, another device: the same bytes, and no path in them."""
    inside = code.unpack((one_run / "train_gpt.py").read_bytes())
    held = json.dumps(inside.recipe) + inside.modules["program"]
    for place in (environment()["PGOLF_CACHE"], str(Path.home()), str(one_run), os.uname().nodename):
        assert place not in held
    elsewhere = str(tmp_path / "cache")
    for built in Path(environment()["PGOLF_CACHE"]).glob("stdlib-*"):
        shutil.copytree(built, Path(elsewhere) / built.name)
    with pytest.MonkeyPatch.context() as patch:
        shas = set()
        for cache, words in ((environment()["PGOLF_CACHE"], ()), (elsewhere, ("machine.ranks=2", "machine.threads=3"))):
            patch.setenv("PGOLF_CACHE", cache)
            (job,) = rehearse([*TINY, *words], sweep=False)
            shas.add(code.script(job.config, job.recipe.data.prepare(lambda what, done: None)).section()["sha256"])
    assert len(shas) == 1


def test_it_survives_a_repository_that_rewrites_line_ends(one_run, tmp_path):
    shutil.copy(one_run / "train_gpt.py", tmp_path)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.safecrlf=false"]
    for words in (["init", "-q"], ["config", "core.autocrlf", "true"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    (tmp_path / "train_gpt.py").unlink()
    subprocess.run([*git, "checkout", "-q", "--", "."], cwd=tmp_path, check=True)
    again = (tmp_path / "train_gpt.py").read_bytes()
    assert code.unpack(again) == code.unpack((one_run / "train_gpt.py").read_bytes())
    assert code.unpack(again.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")) == code.unpack(again)


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("pr606_int5_softround", 35_000),
        ("pr1852_prequant_ttt", 32_000),
        ("frontier", 42_000),
        *(pytest.param(name, 42_000, marks=pytest.mark.slow) for name in IN_OTHERS),
    ],
)
def test_the_files_of_the_published_systems_are_small(name, most, monkeypatch):
    monkeypatch.setenv("PGOLF_CACHE", environment()["PGOLF_CACHE"])
    register_experiments()
    (job,) = rehearse([f"experiment={name}", "scale=laptop", "data.val_fraction=0.0025"], sweep=False)
    corpus = job.recipe.data.prepare(lambda what, done: None)
    assert code.script(job.config, corpus).size <= most


PROBE = '''
"""Decode streams as an artifact's reader does, and say what came of each."""
import sys
from pathlib import Path
from pgolf.codec import Brotli, Lzma, Range, RangeRows, Zstd, decode
from pgolf.errors import ArtifactError

def main(recipe, script):
    for path in sorted(Path(sys.argv[1]).iterdir()):
        for damage in (False, True):
            data = path.read_bytes()
            data = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 255]) + data[len(data) // 2 + 1 :] if damage else data
            try:
                print(path.name, damage, sum(decode(path.name, data, 4096, 1)))
            except ArtifactError as wrong:
                print(path.name, damage, "ArtifactError", str(wrong).split(":")[0])
'''
METHODS = "".join(f"\n    def {name}(self): return 1\n" for name in ("process", "error", "decompress", "read"))


def test_methods_named_like_a_librarys_change_nothing_that_a_library_is_asked_for(tmp_path):
    """Such methods in every class of the package: all codecs still decode from an exported file, and tell damage."""
    package = tmp_path / "pgolf"
    shutil.copytree(Path(pgolf.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r"(?m)^(class \w+(?:\(.*\))?:)\n", rf"\1{METHODS}\n", text), encoding="utf-8")
    (package / "probe.py").write_text(PROBE, encoding="utf-8")
    streams = tmp_path / "streams"
    streams.mkdir()
    raw = bytes(range(128)) * 32
    codecs = sorted((beside_or_inside("conf") / "codec").glob("*.yaml"))
    for path in codecs:
        (job,) = rehearse([f"codec={path.stem}"], sweep=False)
        (streams / job.recipe.codec.name).write_bytes(job.recipe.codec.encode(raw, 1, 64))
    targets = [{"_target_": f"pgolf.codec.{name}"} for name in ("Brotli", "Lzma", "Range", "RangeRows", "Zstd")]
    script = tmp_path / "probe_gpt.py"
    script.write_bytes(code.build({"codecs": targets}, entry="pgolf.probe:main", package=package))
    done = subprocess.run([sys.executable, "-I", script, streams], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(
        line.rsplit(" ", 1) if "Error" not in line else line.split(" Arti") for line in done.stdout.splitlines()
    )
    assert {name for name in said if name.endswith("False")} == {f"{path.name} False" for path in streams.iterdir()}
    assert {value for name, value in said.items() if name.endswith("False")} == {str(sum(raw))}
    assert all(value != str(sum(raw)) for name, value in said.items() if name.endswith("True")), said
    assert "Traceback" not in done.stderr


# ---- what is shown of it


@pytest.mark.slow
def test_the_report_and_the_source(one_run, tmp_path, capsys):
    assert main([str(one_run), "--unpack", str(tmp_path / "source")]) == 0
    out = capsys.readouterr().out
    assert record(one_run)["code"]["sha256"] in out
    assert "built again from this package it is the same" in out
    assert "pgolf.stages.train " in out
    assert "pgolf.config.compose" not in out
    source = (tmp_path / "source" / "train_gpt.py").read_text()
    compile(source, "train_gpt.py", "exec")
    assert "\n# pgolf.export.standalone\n" in source
    assert "def recipe_of(frozen, settings):" in source
    assert "groups = get_type_hints(" in source, "local names as they were written"
    assert json.loads((tmp_path / "source" / "recipe.json").read_text())["limits"]["train_steps"] == 2


def test_a_file_of_another_version_is_shown_as_it_is(one_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pgolf.export.__main__.program", lambda recipe: Program("print(1)", ()))
    assert main([str(one_run / "train_gpt.py"), "--unpack", str(tmp_path / "source")]) == 0
    assert "another file: the sources differ" in capsys.readouterr().out
    source = (tmp_path / "source" / "train_gpt.py").read_text()
    compile(source, "train_gpt.py", "exec")
    assert "def recipe_of(" not in source
    assert main([str(one_run), "--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.export", 0)
    assert (value["sha256"], value["unpacked"]) == (record(one_run)["code"]["sha256"], None)
    assert value["not_built_again"] == "another file: the sources differ"
    assert value["modules"][-1]["module"] == "total"


@pytest.mark.parametrize("content", [None, b"print(1)", b"\xff\xfe"])
def test_what_is_no_exported_file_is_one_message_and_exit_code_2(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "train_gpt.py").write_bytes(content)
    assert main([str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgolf: ")
    assert err.count("\n") == 1
    assert main([str(tmp_path), "--json"]) == 2
    assert err == f"pgolf: {programs.refused(capsys.readouterr().out, 2)}\n"


def test_a_full_folder_is_not_written_into(tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    assert main(["nowhere", "--unpack", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["mine"]


def test_no_argument_is_exit_code_2(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("pgolf: the following arguments are required: RUN (usage: ")
