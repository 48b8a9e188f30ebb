"""What a person sees on the command line: bad input in one message, the benchmark, a warning about the clock, and progress."""

import math

import pytest

from pgolf.bench.contest import Setting
from pgolf.bench.eval import contests
from pgolf.errors import UserError
from pgolf.eval.ledger import Progress
from pgolf.judge import EvalProgress
from tests.command import TINY, run

BAD = [
    (2, ("eval.stride=4096",), "eval.stride=4096: must be between 1 and eval.context (128)"),
    (2, ("ttt=prequant_adamw",), "needs limits=study"),
    (2, ("ttt=adamw_scorefirst",), "Did you mean 'adamw_score_first'?"),
    (2, ("ttt=adamw_score_first", "ttt/trained=query"), "there is no such option"),
    # These are known once the text is; the run has begun, its training has not.
    (1, ("eval.context=1000000", "ttt=none"), "the validation text is shorter than one window"),
    (1, ("ttt=adamw_score_first", "ttt.chunk_tokens=1280000"), "ttt.chunk_tokens=1280000: must be below the"),
    (1, ("ttt=lora_score_first", "ttt.chunk_tokens=129"), "ttt.chunk_tokens=129: must be at most eval.context (128)"),
]


@pytest.mark.parametrize(("code", "words", "message"), BAD, ids=[words[-1] for _, words, _ in BAD])
def test_bad_input_is_one_message_before_anything_is_trained(tmp_path, code, words, message):
    done = run(tmp_path, "limits.train_steps=1", *TINY, *words, code=code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert "step 1" not in done.stdout


class Said:
    """Stands in for the journal, the bar and the clock."""

    def __init__(self, left: float):
        self.left, self.elapsed, self.lines, self.shown = left, 1.0, [], []

    def line(self, text):
        self.lines.append(text)

    def event(self, kind, **fields):
        self.lines.append((kind, fields))

    def update(self, done, text):
        self.shown.append(text)


def progress(done: int, seconds: float) -> Progress:
    return Progress(0, 10, done, 1000, 0, math.nan, seconds)


def test_an_evaluation_that_will_be_late_says_so_once_and_early():
    said = Said(left=100.0)
    listen = EvalProgress(said, said, said)
    listen(progress(49, 49.0))  # too early to tell
    assert said.lines == []
    listen(progress(50, 50.0))
    listen(progress(60, 60.0))
    assert said.lines == ["at this rate evaluation needs 950 s more, and limits.eval_seconds leaves 100"]
    assert said.shown[1] == "50 of 1,000 targets  bpb nan  950 s to go  1 s used, 100 s left"


def test_one_that_will_be_in_time_says_nothing():
    said = Said(left=1000.0)
    EvalProgress(said, said, said)(progress(500, 50.0))
    assert said.lines == []


def test_the_benchmark_agrees_with_itself():
    for contest in contests(Setting("small")):
        assert contest.check({way: work() for way, work in contest.ways.items()})


def test_benchmarks_that_disagree_say_so():
    first = next(contests(Setting("small")))
    made = {way: work() for way, work in first.ways.items()}
    made["scored positions only"] = made["scored positions only"] + 1
    with pytest.raises(UserError, match="nats differ by up to"):
        first.check(made)
