"""Events: what a stage tells, the words that a log has for it, and how it is followed while it is written."""

import json
import math

import pytest

from pgolf.files import events
from pgolf.files.events import EVENTS, LINES, EventReader, Events, line_of
from pgolf.logger import keys


def kept(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / EVENTS).read_text().splitlines()]


def lineless(kind: str) -> bool:
    return kind in ("stage", "progress", "chunk", "score")


# ---- the pen


def test_events_are_appended_with_their_kind_and_time(tmp_path):
    Events(tmp_path).write("dev", step=1, dev_bpb=2.5)
    Events(tmp_path).write("stage", stage="evaluate")
    first, second = kept(tmp_path)
    assert list(first) == ["event", "time", "step", "dev_bpb"]
    assert first | second | {"time": 0} == {"event": "stage", "time": 0, "step": 1, "dev_bpb": 2.5, "stage": "evaluate"}
    assert second["time"] >= first["time"] > 1.7e9
    assert EVENTS == "events.jsonl", "other tools rely on this name"


def test_a_reader_of_the_pen_gets_each_event_as_it_is_kept(tmp_path):
    told: list[dict] = []
    pen = Events(tmp_path, told.append)
    pen.write("notice", text="zwölf", worst=math.inf, parts={"raw": math.nan, "bytes": (1, 2)})
    assert told == kept(tmp_path)
    assert told[0] | {"time": 0} == {
        "event": "notice",
        "time": 0,
        "text": "zwölf",
        "worst": None,
        "parts": {"raw": None, "bytes": [1, 2]},
    }


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[dict] = []
    pen = Events(None, told.append)
    pen.write("dev", step=1)
    pen.progress("train", 0.5, "x")
    Events(None).write("dev", step=1)
    assert [event["event"] for event in told] == ["dev", "progress"]
    assert pen.fault is None
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_a_fault_told_once_and_nothing_else(tmp_path):
    told: list[dict] = []
    (tmp_path / EVENTS).mkdir()
    pen = Events(tmp_path, told.append)
    pen.write("dev", step=1)
    first = pen.fault
    (tmp_path / EVENTS).rmdir()
    tmp_path.rmdir()
    pen.write("dev", step=2)
    assert first == "events.jsonl: cannot be written: Is a directory; events are lost"
    assert pen.fault == first, "the first says why"
    assert len(told) == 2


def test_progress_is_an_event_now_and_then_and_as_each_kind_of_work_begins(monkeypatch):
    now, told = 0.0, []
    monkeypatch.setattr(events.time, "monotonic", lambda: now)
    pen = Events(None, told.append)
    for now in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        pen.progress("train", now, f"step {now}", 100.0)
    pen.progress("seal", 0.0, "pack")
    pen.progress("train", 0.7, "again")
    assert [(e["label"], e["done"], e["text"]) for e in told] == [
        ("train", 0.0, "step 0.0"),
        ("train", 0.3, "step 0.3"),
        ("train", 0.6, "step 0.6"),
        ("seal", 0.0, "pack"),
        ("train", 0.7, "again"),
    ]
    assert [e["tokens_per_second"] for e in told] == [100.0, 100.0, 100.0, 0.0, 0.0]


# ---- the words

NUMBERS = {
    "ready": ({"reserve": 5.25}, "warm-up done and undone; 5.2 s kept for quantising and packing"),
    "step": (
        {"step": 50, "loss": 4.68212, "lr": 0.5, "momentum": 0.9, "tokens_per_second": 7305, "seconds": 12.345},
        "step 50  loss 4.6821  lr x0.500  7,305 tokens/s  12.3 s",
    ),
    "epoch": ({"step": 7, "epoch": 2}, "step 7  the training text has come to its end; pass 2 begins"),
    "dev": ({"step": 9, "seconds": 1.0, "dev_bpb": 2.5, "took": 0.123}, "step 9  dev_bpb 2.5000  (0.12 s)"),
    "sealed": (
        {
            "seconds": 58.04,
            "bytes": 1234567,
            "dev_bpb": {"raw": 1.71, "averaged": 1.7, "quantized": 1.705},
            "gap": 0.005,
        },
        "sealed 1,234,567 bytes  dev_bpb raw 1.7100  averaged 1.7000  quantized 1.7050 (gap +0.0050)  58.0 s",
    ),
    "validation": (
        {"tokens": 62021633, "bytes": 151},
        "validation: 62,021,633 tokens, 151 bytes, proven by document",
    ),
    "notice": ({"text": "{left} s"}, "{left} s"),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_an_event_has_its_line(kind):
    fields, line = NUMBERS[kind]
    assert line_of({"event": kind, "time": 1.0, **fields}) == line
    assert fields.keys() == keys.EVENTS[kind].keys(), "the example is a whole event"


def test_every_kind_has_a_line_or_is_drawn():
    assert set(LINES) == set(NUMBERS)
    assert set(LINES) == {kind for kind in keys.EVENTS if not lineless(kind)}


@pytest.mark.parametrize("kind", ["stage", "progress", "chunk", "score", "of another version"])
def test_what_is_drawn_has_no_line(kind):
    assert line_of({"event": kind, "time": 1.0, "text": "x", "step": 1}) is None


def test_the_log_has_the_first_step_and_every_fiftieth():
    steps = [1, *range(10, 201, 10)]
    fields, _ = NUMBERS["step"]
    lines = [line_of({"event": "step", **fields, "step": step}) for step in steps]
    assert [line.split()[1] for line in lines if line] == ["1", "50", "100", "150", "200"]


def test_a_number_that_was_not_finite_is_shown_as_such(tmp_path):
    fields, _ = NUMBERS["step"]
    pen = Events(tmp_path)
    pen.write("step", **fields | {"loss": math.nan})
    pen.write(
        "sealed", seconds=1.0, bytes=1, gap=math.nan, dev_bpb={"raw": 1.0, "averaged": math.inf, "quantized": 2.0}
    )
    step, sealed = map(line_of, kept(tmp_path))
    assert step.startswith("step 50  loss nan  lr x0.500")
    assert "raw 1.0000  averaged nan  quantized 2.0000 (gap +nan)" in sealed


# ---- those who follow


def test_a_reader_gets_whole_lines_once(tmp_path):
    reader, path = EventReader(tmp_path), tmp_path / EVENTS
    assert reader.new() == [], "there is no file yet"
    path.write_bytes(b'{"event": "a"}\n{"event": "b"}\n{"eve')
    assert reader.new() == [{"event": "a"}, {"event": "b"}]
    assert reader.new() == []
    with open(path, "ab") as file:
        file.write(b'nt": "c"}\n')
    assert reader.new() == [{"event": "c"}]
    assert EventReader(tmp_path).new() == [{"event": "a"}, {"event": "b"}, {"event": "c"}]


def test_a_reader_passes_over_what_is_no_event(tmp_path):
    lines = (
        b'{"event": "a"}',
        b'{"event": "cut sh',
        b"",
        b"[1]",
        b'{"step": 1}',
        b'{"event": 3}',
        b"\xff\xfe",
        b"null",
    )
    (tmp_path / EVENTS).write_bytes(b"\n".join([*lines, b'{"event": "b"}', b""]))
    assert EventReader(tmp_path).new() == [{"event": "a"}, {"event": "b"}]


def test_what_the_pen_writes_is_what_a_reader_gets(tmp_path):
    told: list[dict] = []
    pen, reader = Events(tmp_path, told.append), EventReader(tmp_path)
    for step in range(3):
        pen.write("dev", step=step, text="a\nb\u2028c\x85d")
        assert reader.new() == told[step:]
