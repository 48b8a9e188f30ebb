"""Loggers: what is written is in the schema, W&B's offline files hold it, and nothing a service does can touch a run."""

import ast
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import pgolf
from pgolf.config.compose import rehearse
from pgolf.config.words import short_words
from pgolf.errors import ConfigError
from pgolf.files.events import EVENTS as EVENTS_FILE
from pgolf.files.events import Events
from pgolf.files.receipts import Receipt
from pgolf.logger import OURS, NoLogger, TensorBoard, Wandb, WandbAndTensorBoard
from pgolf.logger.keys import AGGREGATE, AXES, EVENTS, SUMMARY, TABLES, axis, history
from pgolf.logger.mirror import Target, follow
from pgolf.submission import publish
from tests.command import TINY, only, record, run
from tests.sweeps import died, make_plan, make_run
from tests.wandb_files import kept_runs

PACKAGE = Path(pgolf.__file__).parent
OFFLINE = Wandb(project="pgolf", entity=None, mode="offline", patience_seconds=60.0)


@pytest.fixture(autouse=True)
def _apart(monkeypatch, tmp_path):
    """Nothing of a person's own W&B: no key, no home, no cache."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    (tmp_path / "home").mkdir()


# ---- the schema


def written() -> dict[str, set[str]]:
    """Event -> fields, of every events.write("kind", field=..., **numbers) in the package, and of the pen's own."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        pens = ("self.write",) if path.name == "events.py" else ("events.write", "self.events.write")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in pens:
                    fields = {name for keyword in node.keywords for name in named(keyword, function)}
                    found.setdefault(ast.literal_eval(node.args[0]), set()).update(fields)
    return found


def named(keyword: ast.keyword, function: ast.FunctionDef) -> list[str]:
    """The fields that field=... or **numbers stand for, where numbers = {...} is in the same function."""
    if keyword.arg:
        return [keyword.arg]
    name = ast.unparse(keyword.value)
    (value,) = (s.value for s in ast.walk(function) if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == name)
    assert isinstance(value, ast.Dict), (
        f"{function.name}: {name}: fields are spelled out, so that they can be read here"
    )
    return [ast.literal_eval(key) for key in value.keys]


def test_every_event_and_field_that_is_written_is_in_the_schema_and_the_other_way_round():
    assert written() == {kind: set(names) for kind, names in EVENTS.items()}


def test_every_history_has_an_axis():
    names = {name for event in EVENTS.values() for name in event.values() if name and "/" in name}
    assert {axis(name) for name in names} == set(AXES.values())
    assert {f"{name.partition('/')[0]}/*" for name in names} == set(AXES)


def test_history_takes_numbers_by_their_names():
    event = {"event": "dev", "time": 1.0, "step": 3, "seconds": 0.5, "dev_bpb": 2.0}
    assert history(event) == {"step": 3, "seconds": 0.5, "dev/bpb": 2.0}
    assert history({"event": "stage", "stage": "train"}) == {}
    assert history({"event": "of another version", "x": 1}) == {}


def test_tables_name_columns_that_their_rows_have(tmp_path):
    from pgolf.quant.apply import TensorReport

    summary = small_sweep(tmp_path)
    arm, ablation = summary["arms"][0], summary["ablation"]
    assert set(TABLES["tables/layers"]) <= {f.name for f in fields(TensorReport)}
    assert set(TABLES["tables/receipts"]) == {f.name for f in fields(Receipt)}
    assert set(TABLES["tables/arms"]) <= set(arm | arm["val_bpb"])
    assert set(TABLES["tables/seeds"]) <= {"arm", *arm["seeds"][0]}
    assert set(TABLES["tables/ablation"]) <= {"baseline", *ablation["rows"][0]}


# ---- events.jsonl


def test_no_logger_passes_nothing_on(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    live(folder, NoLogger(), pytest.fail)
    NoLogger().aggregate(folder, pytest.fail)
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", EVENTS_FILE]


@pytest.mark.parametrize("name", ["none", "jsonl"])
def test_two_words_mean_that_nothing_is_passed_on(name):
    (job,) = rehearse([f"logger={name}"], sweep=False)
    assert job.recipe.logger == NoLogger()


class Heard(Target):
    """Stands in for a service."""

    def __init__(self):
        self.told = []

    def event(self, event):
        self.told.append(event["event"])

    def close(self):
        self.told.append("closed")


def test_a_mirror_follows_events_to_the_last_and_closes(tmp_path):
    pen, heard, waits = Events(tmp_path), Heard(), iter([False, False, True])

    def ended(seconds: float) -> bool:
        pen.write("dev", step=1)
        return next(waits)

    pen.write("stage", stage="train")
    follow(heard, tmp_path, ended)
    assert heard.told == ["stage", "dev", "dev", "dev", "closed"]


# ---- a run in miniature, mirrored


def live(folder: Path, logger, say) -> None:
    """The life of a run as its folder and events tell it, under a logger's mirror."""
    (folder / "config.yaml").write_text(yaml.safe_dump({"quant": {"bits": 5}, "name": "laptop"}))
    with logger.mirrored(folder, say):
        for kind, numbers in STORY:
            Events(folder).write(kind, **numbers)


STORY = (
    ("stage", {"stage": "train"}),
    ("step", {"step": 1, "seconds": 0.1, "loss": 6.9, "lr": 1.0, "momentum": 0.85, "tokens_per_second": 100}),
    ("step", {"step": 50, "seconds": 5.0, "loss": 4.9, "lr": 0.5, "momentum": 0.9, "tokens_per_second": 90}),
    ("dev", {"step": 50, "seconds": 5.1, "dev_bpb": 2.5}),
    ("sealed", {"seconds": 9.0, "bytes": 12, "dev_bpb": {"raw": 1.71}}),
    ("stage", {"stage": "evaluate"}),
    ("chunk", {"chunk": 1, "seconds": 1.0, "val_bpb": 1.7}),
    ("score", {"seconds": 2.0, "val_bpb": 1.6, "val_loss": 2.8}),
)


@pytest.fixture
def complete(tmp_path) -> Path:
    return make_run(tmp_path, "0_seed1337", 1337, 1.6, arm="quant=int5_gptq")


def test_wandb_keeps_a_run_for_each_stage(complete):
    live(complete, OFFLINE, pytest.fail)
    train, judge = kept_runs(complete)
    assert (train.job_type, judge.job_type) == ("train", "evaluate")
    for kept in (train, judge):
        assert (kept.name, kept.group, kept.project) == ("laptop-seed1337", "quant=int5_gptq", "pgolf")
        assert kept.config["quant"] == {"bits": 5}
        assert kept.metrics == {"step": "", "seconds": ""} | AXES
        assert kept.exit_code == 0
    assert [h["train/loss"] for h in train.history if "train/loss" in h] == [6.9, 4.9]
    assert [(h["step"], h["seconds"], h["dev/bpb"]) for h in train.history if "dev/bpb" in h] == [(50, 5.1, 2.5)]
    assert [h["eval/val_bpb"] for h in judge.history if "eval/val_bpb" in h] == [1.7, 1.6]
    assert not list(complete.glob("mirror*"))


def test_the_summary_is_the_records_and_not_the_last_value_logged(complete):
    made = record(complete)
    made["evaluate"]["val_bpb"] = 1.5
    (complete / "record.json").write_text(json.dumps(made))
    live(complete, OFFLINE, pytest.fail)
    judge = kept_runs(complete)[-1]
    assert judge.summary["eval/val_bpb"] == 1.6
    assert judge.summary["final/val_bpb"] == 1.5
    assert judge.summary["final/dev_bpb_quantized"] == 1.705
    assert judge.summary["final/verdict"] == "consistent"
    final = {name for name in judge.summary if name.startswith("final/")}
    assert final <= set(SUMMARY)


def test_the_artifact_holds_model_config_and_log_and_tables_hold_rows(complete):
    made = record(complete)
    made["artifact"]["layers"] = [
        {"name": "blocks.0.up", "section": "mlp", "bits": 5, "error": 0.01, "rounding_error": 0.02}
    ]
    (complete / "record.json").write_text(json.dumps(made))
    live(complete, OFFLINE, pytest.fail)
    judge = kept_runs(complete)[-1]
    kind, files = judge.artifacts["laptop-seed1337"]
    assert kind == "model"
    assert files == {"artifact.pgolf", "config.yaml", "train.log", "record.json", "train_gpt.py"}
    assert judge.tables["tables/layers"]["columns"] == list(TABLES["tables/layers"])
    assert judge.tables["tables/layers"]["data"][0][:3] == ["blocks.0.up", "mlp", 5]
    assert judge.tables["tables/receipts"]["data"] == [["average", "distance to the raw weights", 0.125, True]]


def test_a_run_that_failed_is_failed_in_wandb_too(tmp_path):
    folder = died(tmp_path, "0_seed1", 1, "failed", "RankError: rank 0 died")
    live(folder, OFFLINE, pytest.fail)
    assert kept_runs(folder)[-1].exit_code == 1
    assert kept_runs(folder)[-1].summary["final/status"] == "failed"


def small_sweep(folder: Path) -> dict:
    arms = {"default": (1.6, 1.61), "quant=int5_gptq": (1.58, 1.585)}
    make_plan(folder, **{arm: [1, 2] for arm in arms})
    for arm, scores in arms.items():
        for seed, bpb in enumerate(scores, 1):
            make_run(folder, f"{len(list(folder.glob('*_seed*')))}_seed{seed}", seed, bpb, arm=arm)
    return publish(folder)


def test_a_sweep_is_an_aggregate_run(tmp_path):
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    small_sweep(sweep)
    OFFLINE.aggregate(sweep, pytest.fail)
    (kept,) = kept_runs(sweep)
    assert (kept.job_type, kept.name, kept.exit_code) == ("aggregate", "sweep-aggregate", 0)
    assert set(AGGREGATE) <= set(kept.summary)
    assert (kept.summary["final/val_bpb"], kept.summary["final/arm"]) == (1.5825, "quant=int5_gptq")
    assert len(kept.tables["tables/seeds"]["data"]) == 4
    assert len(kept.tables["tables/ablation"]["data"]) == 1
    (_, files) = kept.artifacts["sweep-submission"]
    assert {"summary.json", "submission/default/submission.json"} <= files


# ---- when W&B is not well


def client(monkeypatch, tmp_path, body: str) -> None:
    """Put another `wandb` before the real one."""
    place = tmp_path / "client"
    place.mkdir()
    (place / "wandb.py").write_text(
        "from types import SimpleNamespace as Run\nSettings = Table = Artifact = Run\n" + body
    )
    monkeypatch.setenv("PYTHONPATH", str(place))


def test_a_client_that_hangs_is_stopped_and_said(monkeypatch, tmp_path, complete):
    client(monkeypatch, tmp_path, "import time\ndef init(**words): time.sleep(600)\n")
    said: list[str] = []
    live(complete, Wandb(project="pgolf", entity=None, mode="offline", patience_seconds=0.5), said.append)
    (line,) = said
    assert "Wandb: was not done 0.5 s after the end and was stopped" in line
    assert len((complete / EVENTS_FILE).read_text().splitlines()) == len(STORY)


def test_a_client_that_fails_costs_a_line(monkeypatch, tmp_path, complete):
    client(monkeypatch, tmp_path, "def init(**words): raise RuntimeError('the disk is full')\n")
    said: list[str] = []
    live(complete, OFFLINE, said.append)
    (line,) = said
    assert re.search(r"Wandb: ended with exit code 1. RuntimeError: the disk is full \(see .*mirror_wandb.log\)", line)


def test_online_without_a_key_is_kept_offline_and_said(complete):
    said: list[str] = []
    live(complete, Wandb(project="pgolf", entity=None, mode="online", patience_seconds=60.0), said.append)
    assert "there is no key for W&B" in said[0]
    assert [kept.job_type for kept in kept_runs(complete)] == ["train", "evaluate"]


def test_an_exception_in_the_run_goes_through(complete):
    with pytest.raises(KeyboardInterrupt), OFFLINE.mirrored(complete, pytest.fail):
        raise KeyboardInterrupt


def test_settings_are_checked():
    with pytest.raises(ConfigError, match=r"logger\.mode=.on.: must be offline, online or disabled"):
        Wandb(project="p", entity=None, mode="on", patience_seconds=1.0)
    with pytest.raises(ConfigError, match=r"logger\.patience_seconds"):
        Wandb(project="p", entity=None, mode="offline", patience_seconds=0.0)


@pytest.mark.parametrize(("word", "part"), [("logger=wandb", ""), ("logger=both", "wandb")])
def test_variables_of_the_client_are_values_that_a_word_overrides(word, part, monkeypatch):
    for name, value in (("WANDB_PROJECT", "mine"), ("WANDB_ENTITY", "me"), ("WANDB_MODE", "disabled")):
        monkeypatch.setenv(name, value)

    def spec(*words: str) -> Wandb:
        logger = rehearse([word, *words], sweep=False)[0].recipe.logger
        return logger.wandb if part else logger

    assert (spec().project, spec().entity, spec().mode, spec().on) == ("mine", "me", "disabled", False)
    key = f"logger.{part}.project".replace("..", ".")
    assert spec(f"{key}=other").project == "other"
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    with pytest.raises(ConfigError, match=r"logger\.mode='dryrun': must be offline, online or disabled, .*WANDB_MODE"):
        spec()
    for name in ("WANDB_PROJECT", "WANDB_ENTITY", "WANDB_MODE"):
        monkeypatch.delenv(name)
    assert (spec().project, spec().entity, spec().mode) == ("pgolf", None, "offline")


@pytest.mark.parametrize("name", OURS)
def test_variables_that_say_what_pgolf_says_are_refused_aloud(name, monkeypatch):
    monkeypatch.setenv(name, "fixed")
    with pytest.raises(ConfigError, match=rf"logger='wandb': cannot do as {name}=fixed says: .*unset {name}"):
        rehearse(["logger=wandb"], sweep=False)
    rehearse(["logger=wandb", "logger.mode=disabled"], sweep=False)
    rehearse(["logger=tensorboard"], sweep=False)
    monkeypatch.setenv(name, "")
    rehearse(["logger=wandb"], sweep=False)


@pytest.mark.parametrize("word", ["logger=wandb", "logger=both"])
def test_disabled_starts_nothing_and_leaves_nothing(word, complete, monkeypatch):
    key = "logger.mode" if word == "logger=wandb" else "logger.wandb.mode"
    (job,) = rehearse([word, f"{key}=disabled"], sweep=False)
    wandb = getattr(job.recipe.logger, "wandb", job.recipe.logger)
    monkeypatch.setattr("pgolf.logger.mirror.Helper", lambda *args, **words: pytest.fail("a process was started"))
    before = sorted(path.name for path in complete.iterdir())
    live(complete, wandb, pytest.fail)
    wandb.aggregate(complete.parent, pytest.fail)
    assert sorted(path.name for path in complete.iterdir()) == sorted([*before, "config.yaml", EVENTS_FILE])


# ---- TensorBoard


def test_tensorboard_files_hold_the_histories(complete):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    live(complete, TensorBoard(patience_seconds=120.0), pytest.fail)
    assert_tensorboard(complete)


def assert_tensorboard(complete: Path) -> None:
    """Its files have the numbers of STORY."""
    code = (
        "import sys, json\nfrom tensorboard.backend.event_processing.event_accumulator import EventAccumulator as E\n"
    )
    code += "e = E(sys.argv[1]); e.Reload()\n"
    code += "print(json.dumps({t: [(s.step, s.value) for s in e.Scalars(t)] for t in e.Tags()['scalars']}))"
    out = subprocess.run(
        [sys.executable, "-c", code, str(complete / "tensorboard")], capture_output=True, text=True, check=True
    )
    found = json.loads(out.stdout)
    assert found["train/loss"] == [[1, pytest.approx(6.9)], [50, pytest.approx(4.9)]]
    assert found["eval/val_bpb"] == [[1, pytest.approx(1.7)], [2, pytest.approx(1.6)]]
    assert found["final/val_bpb"] == [[0, pytest.approx(1.6)]]


def test_two_services_at_once_have_the_same_and_touch_each_other_in_nothing(complete):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    words = ["logger=both", "logger.wandb.patience_seconds=900", "logger.tensorboard.patience_seconds=900"]
    (job,) = rehearse([*words, short_words("logger.wandb.project=2026_11_25")], sweep=False)
    live(complete, job.recipe.logger, pytest.fail)
    assert [kept.job_type for kept in kept_runs(complete)] == ["train", "evaluate"]
    assert {kept.project for kept in kept_runs(complete)} == {"2026_11_25"}
    assert_tensorboard(complete)
    assert not list(complete.glob("mirror*"))


def test_of_two_services_one_may_fail(monkeypatch, tmp_path, complete):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    client(monkeypatch, tmp_path, "def init(**words): raise RuntimeError('the disk is full')\n")
    said: list[str] = []
    live(complete, WandbAndTensorBoard(wandb=OFFLINE, tensorboard=TensorBoard(patience_seconds=900.0)), said.append)
    (line,) = said
    assert line.startswith("Wandb: ended with exit code 1. RuntimeError: the disk is full")
    assert_tensorboard(complete)


def test_tensorboard_that_is_not_installed_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr("pgolf.logger.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'pgolf\[tensorboard\]'"):
        TensorBoard(patience_seconds=1.0)


# ---- the whole line


@pytest.mark.slow
def test_a_sweep_with_wandb_leaves_stages_an_aggregate_and_reports(tmp_path):
    done = run(
        tmp_path,
        "-m",
        "seed=3",
        "hydra.sweep.dir=sweep",
        "logger=wandb",
        "logger.patience_seconds=120",
        "limits.train_steps=3",
        *TINY,
    )
    assert "Wandb:" not in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("val_bpb=")
    folder = only(tmp_path, "sweep/*_seed*")
    made = record(folder)
    train, judge = kept_runs(folder)
    assert train.summary["final/artifact_bytes"] == made["artifact"]["bytes"]
    final = {name: value for name, value in judge.summary.items() if name.startswith("final/")}
    assert set(final) == set(SUMMARY), "every place of the schema is there in a complete run"
    assert final["final/val_bpb"] == made["evaluate"]["val_bpb"]
    assert {"artifact.pgolf", "config.yaml", "train.log", "report.html"} <= judge.artifacts["laptop-seed3"][1]
    events = [json.loads(line) for line in (folder / EVENTS_FILE).read_text().splitlines()]
    rare = {"epoch", "notice"}
    assert {e["event"] for e in events} - rare == set(EVENTS) - rare
    assert all({"event", "time", *EVENTS[e["event"]]} == set(e) for e in events)
    (aggregate,) = kept_runs(tmp_path / "sweep")
    assert aggregate.job_type == "aggregate"
    assert (folder / "report.html").exists()
    assert (tmp_path / "sweep/report.html").exists()
