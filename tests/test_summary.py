"""The summary of a sweep: complete seeds averaged, every other seed named, the same bytes each time."""

import json
import math
import os
import statistics

import pytest

from pgolf import files
from pgolf.errors import UserError
from pgolf.results.summary import aggregate, find_arm
from tests.sweeps import died, edit, make_plan, make_run, sha, write

BPB = {1337: 1.60123456, 42: 1.60323456, 7: 1.60223456}


@pytest.fixture
def sweep(tmp_path):
    for job, (seed, bpb) in enumerate(BPB.items()):
        make_run(tmp_path, str(job), seed, bpb)
    return tmp_path


def only(sweep):
    (arm,) = aggregate(sweep)["arms"]
    return arm


def test_mean_and_std_of_three_seeds(sweep):
    make_plan(sweep, default=[1337, 42, 7])
    arm = only(sweep)
    assert arm["n"] == 3
    assert arm["val_bpb"] == {
        "mean": round(statistics.mean(BPB.values()), 8),
        "std": round(statistics.stdev(BPB.values()), 8),
    }
    assert [r["val_bpb"] for r in arm["seeds"]] == list(BPB.values())
    assert arm["not_complete"] == arm["not_used"] == []
    row = arm["seeds"][0]
    assert row["total_bytes"] == row["artifact_bytes"] + row["code_bytes"]
    assert row["disagreements"] == []


def test_written_and_idempotent(sweep):
    first = aggregate(sweep)
    data = (sweep / "summary.json").read_bytes()
    assert json.loads(data) == first
    aggregate(sweep)
    assert (sweep / "summary.json").read_bytes() == data
    assert not list(sweep.glob(".*"))


def test_half_a_sweep_names_what_is_not_there(tmp_path):
    make_plan(tmp_path, default=[1337, 42, 7, 9])
    make_run(tmp_path, "0", 1337)
    died(tmp_path, "1", 42, "failed", "rank 1 died")
    died(tmp_path, "2", 7, "running")
    arm = only(tmp_path)
    assert arm["n"] == 1
    assert arm["val_bpb"]["std"] is None
    assert [(a["seed"], a["status"], a["run"]) for a in arm["not_complete"]] == [
        (42, "failed", "1"),
        (7, "running", "2"),
        (9, "missing", None),
    ]
    assert arm["not_complete"][0]["why"] == "rank 1 died"


def test_nothing_finished_yet(tmp_path):
    make_plan(tmp_path, default=[1, 2])
    arm = only(tmp_path)
    assert (arm["n"], arm["val_bpb"]["mean"]) == (0, None)


def test_a_seed_run_twice_uses_the_later_and_names_the_former(sweep):
    make_run(sweep, "3", 42, 1.59, finished="2026-05-02T10:00:00+00:00")
    arm = only(sweep)
    assert arm["n"] == 3
    assert next(r for r in arm["seeds"] if r["seed"] == 42)["run"] == "3"
    assert arm["not_used"] == [
        {"seed": 42, "status": "complete", "run": "1", "val_bpb": BPB[42], "why": "3 stands for this seed"}
    ]


def test_a_failed_run_is_replaced_by_a_complete_one_and_named(sweep):
    died(sweep, "3", 42, "interrupted", "Ctrl-C")
    arm = only(sweep)
    assert next(r for r in arm["seeds"] if r["seed"] == 42)["run"] == "1"
    assert [(r["run"], r["status"], r["val_bpb"]) for r in arm["not_used"]] == [("3", "interrupted", None)]


def test_a_seed_run_twice_with_other_code_is_refused_and_said(sweep):
    make_run(sweep, "3", 42, 1.59, script=b"other\n", finished="2026-05-02T10:00:00+00:00")
    with pytest.raises(UserError, match=r"seed 42 was run twice and the code differs: .*move one"):
        aggregate(sweep)
    written = json.loads((sweep / "summary.json").read_text())["arms"][0]
    assert "code differs" in written["refused"]
    assert written["val_bpb"] is None


def test_seeds_of_one_arm_with_different_code_have_no_mean(sweep):
    make_run(sweep, "3", 99, script=b"other\n")
    with pytest.raises(UserError, match="the code differs between seeds"):
        aggregate(sweep)


def test_a_seed_that_was_not_planned_is_not_averaged(sweep):
    make_plan(sweep, default=[1337, 42])
    arm = only(sweep)
    assert arm["n"] == 2
    assert [(r["seed"], r["why"]) for r in arm["not_used"]] == [(7, "this seed is not in the plan")]


def test_a_record_of_another_version_counts_if_its_code_is_the_same(sweep):
    """Old sweeps stay readable; versions whose code differs have no mean, as any code that differs."""
    edit(sweep / "1", None, pgolf="0.0.1")
    summary = aggregate(sweep)
    assert (summary["arms"][0]["n"], summary["problems"]) == (3, [])
    edit(sweep / "1", "code", sha256="f" * 64)
    with pytest.raises(UserError, match="code"):
        aggregate(sweep)


def test_two_sweeps_in_one_folder_are_not_mixed(sweep):
    for job, seed in enumerate((1337, 42), 3):
        make_run(sweep, str(job), seed, 1.5, arm="quant=int5")
    make_run(sweep, "5", 8, 1.4)
    make_plan(sweep, **{"quant=int5": [1337, 42]})  # the second sweep's plan takes the place of the first's
    second, first = aggregate(sweep)["arms"]
    assert (second["arm"], second["n"], second["seeds_planned"]) == ("quant=int5", 2, [1337, 42])
    assert (first["arm"], first["n"], first["seeds_planned"]) == ("default", 4, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"pgolf": "0.1.0", "sta', "not JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "pgolf is missing"),
        ('{"a": NaN}', "NaN"),
    ],
)
def test_a_malformed_record_is_named(sweep, text, why):
    make_run(sweep, "3", 99)
    (sweep / "3" / "record.json").write_text(text)
    summary = aggregate(sweep)
    assert summary["arms"][0]["n"] == 3
    (problem,) = summary["problems"]
    assert problem["run"] == "3"
    assert why in problem["why"]


@pytest.mark.parametrize(
    ("section", "changes", "why"),
    [
        ("evaluate", {"val_bpb": "1.6"}, "evaluate.val_bpb is '1.6'"),
        ("evaluate", {"val_bpb": None}, "evaluate.val_bpb is missing"),
        (None, {"artifact": None}, "artifact.sha256 is missing"),
        (None, {"code": "abc"}, "code.sha256 is missing"),
        (None, {"seed": True}, "seed is True"),
        (None, {"status": "done"}, "is none of running"),
        (None, {"receipts": [{"part": "x"}]}, "receipts holds"),
        ("train", {"phases": {"steps": "long"}}, "train.phases.steps"),
    ],
)
def test_a_record_of_the_wrong_shape_is_named(sweep, section, changes, why):
    edit(make_run(sweep, "3", 99), section, **changes)
    summary = aggregate(sweep)
    assert summary["arms"][0]["n"] == 3
    assert why in summary["problems"][0]["why"]


def test_a_job_without_a_record_and_a_broken_plan_are_named(sweep):
    (sweep / "3" / ".hydra").mkdir(parents=True)
    (sweep / "plan.json").write_text('{"arms": 3}')
    problems = aggregate(sweep)["problems"]
    assert [p["run"] for p in problems] == ["plan.json", "3"]


@pytest.mark.parametrize(
    ("section", "changes", "why"),
    [
        ("evaluate", {"val_bpb": 1.5}, "val_loss, tokens and bytes give 1.60123456"),
        ("evaluate", {"tokens": 39_000}, "give 1.56"),
        ("artifact", {"bytes": 3}, "artifact.pgolf has 12 bytes"),
        ("artifact", {"sha256": "0"}, "artifact.pgolf is not the file"),
        ("code", {"sha256": "f" * 64}, "does not name the code"),
        (None, {"log_sha256": "0"}, "train.log is not the file"),
    ],
)
def test_an_edited_record_is_seen(sweep, section, changes, why):
    edit(sweep / "0", section, **changes)
    if section == "code":
        for job in "12":
            edit(sweep / job, section, **changes)
    found = "; ".join(only(sweep)["seeds"][0]["disagreements"])
    assert why in found


def test_an_edited_log_is_seen(sweep):
    log = sweep / "0" / "train.log"
    log.write_text(log.read_text().replace("1.60123456", "1.50123456"))
    assert len(only(sweep)["seeds"][0]["disagreements"]) == 2
    log.unlink()
    assert "cannot be read" in only(sweep)["seeds"][0]["disagreements"][0]


def test_ablation_against_the_first_planned_arm(sweep):
    make_plan(sweep, **{"default": [1337, 42, 7], "ttt=adamw": [1337, 42, 7]})
    for job, (seed, bpb) in enumerate(BPB.items(), 3):
        make_run(sweep, str(job), seed, round(bpb - 0.01, 8), arm="ttt=adamw")
    ablation = aggregate(sweep)["ablation"]
    (row,) = ablation["rows"]
    assert (ablation["baseline"], row["arm"]) == ("default", "ttt=adamw")
    assert row["difference_bpb"] == -0.01
    assert row["difference_nats_per_token"] == pytest.approx(-0.01 * 0.693147 * 2.5, rel=1e-5)
    assert row["t"] == pytest.approx(-12.2474, rel=1e-4)
    assert row["low"] < -0.01 < row["high"] < 0
    assert row["p"] < 0.01
    assert row["seeds_needed"] == 2  # t = -10 on 2 degrees: p = .00985


def test_ablation_with_one_seed_has_a_difference_and_no_test(tmp_path):
    make_run(tmp_path, "0", 1, 1.6)
    make_run(tmp_path, "1", 1, 1.5, arm="b")
    died(tmp_path, "2", 1, "failed", arm="c")
    rows = aggregate(tmp_path)["ablation"]["rows"]
    assert (rows[0]["difference_bpb"], rows[0]["p"]) == (-0.1, None)
    assert rows[1]["note"] == "no mean on this side"


def test_jobs_are_in_the_order_of_their_numbers(tmp_path):
    for job in (10, 9, 2):
        make_run(tmp_path, f"{job}_x", job)
    assert [r["seed"] for r in only(tmp_path)["seeds"]] == [2, 9, 10]


def test_find_arm(sweep):
    summary = aggregate(sweep)
    assert find_arm(summary, "default") is find_arm(summary, sha(b"default")[:8])
    with pytest.raises(UserError, match=r"no arm 'defualt'.*Did you mean 'default'"):
        find_arm(summary, "defualt")


def test_a_full_disk_leaves_the_old_summary(sweep, monkeypatch):
    aggregate(sweep)
    before = (sweep / "summary.json").read_bytes()
    make_run(sweep, "3", 99)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device; what was there is unchanged"):
        aggregate(sweep)
    assert (sweep / "summary.json").read_bytes() == before
    assert not list(sweep.glob(".*"))


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(tmp_path / "x.json", {"a": object()})
    assert files.read_json(tmp_path / "x.json") == {"a": 1}


def test_numbers_that_json_lacks_are_null(tmp_path):
    value = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)], "c": {"d": math.nan}, "e": "NaN", "f": None, "g": 3}
    plain = {"a": None, "b": [None, [None, 1.5]], "c": {"d": None}, "e": "NaN", "f": None, "g": 3}
    assert files.finite(value) == plain
    files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == plain
    assert files.json_bytes(math.nan) == b"null\n"


def test_not_a_folder(tmp_path):
    write(tmp_path / "x", 1)
    with pytest.raises(UserError, match="not a folder"):
        aggregate(tmp_path / "x")


def test_an_arm_is_found_by_the_words_that_it_alone_has(tmp_path):
    for job, bits in enumerate((5, 6)):
        make_run(tmp_path, f"{job}_seed1", 1, arm=f"experiment=x,quant.bits={bits},limits.train_steps=2")
    summary = aggregate(tmp_path)
    assert find_arm(summary, "quant.bits=6") is summary["arms"][1]
    assert find_arm(summary, "limits.train_steps=2,quant.bits=5") is summary["arms"][0]
    with pytest.raises(UserError, match="names 2 arms"):
        find_arm(summary, "experiment=x")
