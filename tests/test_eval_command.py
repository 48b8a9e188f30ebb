"""What a person sees on the command line: bad input in one message, the benchmark, a warning about the clock, and progress."""

import math
import os
from unittest.mock import patch

import pytest
from hydra import initialize_config_dir

from pgolf.bench.contest import Setting
from pgolf.bench.eval import contests
from pgolf.config.compose import beside_or_inside, jobs
from pgolf.errors import UserError
from pgolf.eval.ledger import Progress
from pgolf.files.events import Events
from pgolf.limits.clock import Clock
from pgolf.stages.judge import EvalProgress
from tests.command import TINY, environment, run

BAD = [
    (("eval.stride=4096",), "eval.stride=4096: must be between 1 and eval.context (128)"),
    (("ttt=prequant_adamw",), "needs limits=study"),
    (("ttt=adamw_scorefirst",), "Did you mean 'adamw_score_first'?"),
    (("ttt=adamw_score_first", "ttt/trained=query"), "there is no such option"),
    (
        ("ttt=none", "ttt/mixer=hedge"),
        "ttt/mixer: the ttt that is chosen has no mixer; of its options these have one: adamw_score_first",
    ),
    (("ttt/mixer=hedge",), "ttt.mixer='Hedge': must be null or ngram"),
    (("ttt.mixer.order=10000000",), "ttt.mixer.order=10000000: must be at most the"),
    (("ttt=parallel_lora", "ttt.places=[]"), "ttt.places=[]: must be at least one of q, k, v, o, mlp, head"),
    (("ttt=parallel_lora", "ttt.alpha=0"), "ttt.alpha=0.0: must be above 0"),
    (("ttt=parallel_lora", "ttt.rank=0"), "ttt.rank=0: must be at least 1"),
    (("ttt=parallel_lora", "ttt.chunk_tokens=129"), "ttt.chunk_tokens=129: must be at most eval.context (128)"),
    (
        ("ttt=parallel_lora", "ttt.documents=2", "ttt/phases=global_sgd"),
        "ttt.phases.after=[833, 1666, 2500]: must be numbers up to",
    ),
    (
        ("ttt=parallel_lora", "ttt/phases=global_sgd", "ttt.phases.after=[5,3]"),
        "ttt.phases.after=[5, 3]: must be rising",
    ),
    (("ttt=lora_score_first", "ttt.layers=[]"), "ttt.layers=[]: must be at least one ending of a layer's name"),
    (("eval.context=1000000", "ttt=none"), "the validation text is shorter than one window"),
    (("ttt=adamw_score_first", "ttt.chunk_tokens=1280000"), "ttt.chunk_tokens=1280000: must be below the"),
    (("ttt=lora_score_first", "ttt.chunk_tokens=129"), "ttt.chunk_tokens=129: must be at most eval.context (128)"),
    (
        ("ttt=lora_score_first", "ttt.chunk_tokens=128", "ttt.layers=[attn.q,foo]"),
        "ttt.layers=['attn.q', 'foo']: 'foo' ends no layer's name: ",
    ),
    (("ttt=sgd_score_first", "ttt/trained=queries", "ttt.trained.blocks=1"), "ttt.trained.blocks"),
    (("data.batch_tokens=1073741824", "data.sequence_length=256"), "fewer than one batch"),
]


@pytest.fixture(scope="module")
def text():
    """The corpus of the tests is built: what is known of a text is known once it is there."""
    with (
        patch.dict(os.environ, environment()),
        initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"),
    ):
        (tiny,) = jobs(list(TINY), sweep=False)
    tiny.recipe.data.prepare(lambda what, done: None)


@pytest.mark.usefixtures("text")
@pytest.mark.parametrize(("words", "message"), BAD, ids=[words[-1] for words, _ in BAD])
def test_bad_input_is_one_message_before_anything_is_started(tmp_path, words, message):
    done = run(tmp_path, "limits.train_steps=1", *TINY, *words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_shards_that_are_not_there_are_told_before_anything_is_started(tmp_path):
    done = run(tmp_path, "data=fineweb_sp1024", "data.folder=nowhere", code=2)
    assert "Fetch the shards with `python -m pgolf.data fineweb_sp1024`" in done.stderr
    assert list(tmp_path.iterdir()) == []


class Said(Events):
    """Keeps lines, other events, and all progress."""

    def __init__(self):
        super().__init__(None, self.hear)
        self.lines, self.events, self.shown = [], [], []

    def hear(self, event):
        (self.lines if event["event"] == "notice" else self.events).append(event)

    def progress(self, label, done, text, tokens_per_second=0.0):
        self.shown.append(text)


class Stopped(Clock):
    """A clock that shows one second, of so many more."""

    elapsed = 1.0

    def __init__(self, left: float):
        super().__init__(1.0 + left)


def heard(left: float, *progress: Progress) -> Said:
    said = Said()
    listen = EvalProgress(said, Stopped(left))
    for now in progress:
        listen(now)
    return said


def progress(done: int, seconds: float) -> Progress:
    return Progress(0, 10, done, 1000, 0, math.nan, seconds)


def test_an_evaluation_that_will_be_late_says_so_once_and_early():
    early = progress(49, 49.0)
    assert heard(100.0, early).lines == [], "too early to tell"
    said = heard(100.0, early, progress(50, 50.0), progress(60, 60.0))
    (line,) = said.lines
    assert line["text"] == "at this rate evaluation needs 950 s more, and limits.eval_seconds leaves 100"
    assert said.shown[1] == "50 of 1,000 targets  950 s to go  1 s used, 100 s left"


def test_the_running_score_is_shown_once_a_chunk_is_committed():
    said = heard(100.0, *[Progress(1, 10, 150, 1000, 1, 1.5, 15.0)] * 2)
    assert said.shown == ["150 of 1,000 targets  bpb 1.5000  85 s to go  1 s used, 100 s left"] * 2
    (chunk,) = said.events
    assert chunk | {"time": 0} == {"event": "chunk", "time": 0, "chunk": 1, "val_bpb": 1.5, "seconds": 1.0}


def test_one_that_will_be_in_time_says_nothing():
    assert heard(1000.0, progress(500, 50.0)).lines == []


def test_the_benchmark_agrees_with_itself():
    for contest in contests(Setting("small")):
        assert contest.check({way: work() for way, work in contest.ways.items()})


def test_benchmarks_that_disagree_say_so():
    first = next(contests(Setting("small")))
    made = {way: work() for way, work in first.ways.items()}
    made["scored positions only"] = made["scored positions only"] + 1
    with pytest.raises(UserError, match="nats differ by up to"):
        first.check(made)
