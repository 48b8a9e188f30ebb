"""The submission folder: generated, consistent to the digit, refused when anything is missing, failing or disagrees."""

import json
import os
import statistics

import pytest

from pgolf.errors import UserError
from pgolf.files import read_json, write_folder
from pgolf.results.jsonshape import submission_schema, violations
from pgolf.stages.views import digits
from pgolf.submission import publish, write_submission
from pgolf.submission.__main__ import main
from pgolf.submission.describe import requirements
from tests import programs
from tests.sweeps import SCRIPT, died, edit, make_plan, make_run

BPB = {1337: 1.60123456, 42: 1.60323456, 7: 1.6022}


@pytest.fixture
def sweep(tmp_path):
    make_plan(tmp_path, default=list(BPB))
    for job, (seed, bpb) in enumerate(BPB.items()):
        make_run(tmp_path, str(job), seed, bpb)
    return tmp_path


def why(sweep):
    (arm,) = publish(sweep)["arms"]
    assert arm["submission"]["written"] is False
    assert not (sweep / "submission" / "default").exists()
    return arm["submission"]["why"]


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_folder_is_whole(sweep):
    summary = publish(sweep)
    assert summary["arms"][0]["submission"] == {"written": True, "folder": "submission/default"}
    assert read_json(sweep / "summary.json") == summary
    found = contents(sweep / "submission" / "default")
    logs = {f"train_seed{s}.log" for s in BPB}
    assert set(found) == {"README.md", "submission.json", "train_gpt.py", "requirements.txt"} | logs
    assert found["train_gpt.py"] == SCRIPT
    assert found["train_seed42.log"] == (sweep / "1" / "train.log").read_bytes()


def test_readme_json_and_logs_have_the_same_digits(sweep):
    publish(sweep)
    folder = sweep / "submission" / "default"
    readme, submission = (folder / "README.md").read_text(), read_json(folder / "submission.json")
    assert submission["val_bpb"] == round(statistics.mean(BPB.values()), 8)
    for value in (submission["val_bpb"], submission["val_bpb_std"], submission["val_loss"], submission["val_loss_std"]):
        assert f"| {digits(value)} |" in readme
    for seed in submission["seeds"]:
        row = submission["seed_results"][str(seed)]
        assert row["val_bpb"] == BPB[seed]
        assert f"| {seed} | {digits(row['val_bpb'])} | {digits(row['val_loss'])} |" in readme
        assert f"val_bpb={digits(row['val_bpb'])}\n" in (folder / f"train_seed{seed}.log").read_text()
    assert submission["bytes_total"] == max(r["bytes_total"] for r in submission["seed_results"].values())


def test_readme_tells_the_whole_story(sweep):
    publish(sweep)
    readme = (sweep / "submission" / "default" / "README.md").read_text()
    for line in (
        "| quant | Int6Gptq | six bits \\| with error feedback |",
        "| gptq | 9.50 | 9.50 | 9.50 |",
        "| adapt | 5.25 | 5.25 | 5.25 |",
        "| matrices | 8 | 8 | 8 |",
        "| 7 | average | distance to the raw weights | 0.125 | yes |",
        "| 7 | consistent |",
        "| xz -9e | 1.73000000 |",
        "python -m pgolf.run seed.value=42",
        "SEED=42 torchrun --standalone --nproc_per_node=1 train_gpt.py",
        "Not in the configuration, and not invented: `author`, `github_id`, `name`, `blurb`.",
    ):
        assert line in readme, line


def test_publishing_twice_changes_nothing(sweep):
    publish(sweep)
    before = contents(sweep / "submission" / "default"), (sweep / "summary.json").read_bytes()
    publish(sweep)
    assert (contents(sweep / "submission" / "default"), (sweep / "summary.json").read_bytes()) == before
    assert [p.name for p in (sweep / "submission").iterdir()] == ["default"]


def test_an_author_comes_from_the_configuration(sweep):
    for job in "012":
        edit(sweep / job, None, author={"author": "A. Person", "github_id": "aperson", "name": "Small"})
    publish(sweep)
    submission = read_json(sweep / "submission" / "default" / "submission.json")
    assert (submission["author"], submission["blurb"]) == ("A. Person", None)
    assert submission["pgolf"]["still_needed"] == ["blurb"]
    assert (sweep / "submission" / "default" / "README.md").read_text().startswith("# Small\n")


def test_half_a_sweep_is_not_written_and_says_what_is_missing(sweep):
    make_plan(sweep, default=[*BPB, 99, 100])
    died(sweep, "3", 99, "failed", "out of memory")
    assert why(sweep) == "seed 99 is failed: out of memory; seed 100 is missing: planned, and there is no record of it"


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        (None, {"verdict": "fail (C3)"}, "seed 42: verdict fail (C3)"),
        ("evaluate", {"val_bpb": 1.5}, "seed 42: val_bpb is 1.50000000, but"),
        ("limits", {"artifact_bytes": 20}, "seed 42: 25 bytes are over limits.artifact_bytes=20"),
        (None, {"log_sha256": "0" * 64}, "train.log is not the file"),
    ],
)
def test_a_bad_seed_refuses_the_arm_and_takes_its_old_folder_away(sweep, section, changes, reason):
    publish(sweep)
    edit(sweep / "1", section, **changes)
    assert reason in why(sweep)


def test_a_verdict_that_needs_an_argument_is_written_and_shown(sweep):
    edit(sweep / "1", None, verdict="needs argument (mixture)")
    publish(sweep)
    submission = read_json(sweep / "submission" / "default" / "submission.json")
    assert submission["pgolf"]["verdict"]["42"] == "needs argument (mixture)"
    assert submission["compliance"]["verdict_consistent"] is False


@pytest.mark.parametrize(
    ("script", "reason"), [(None, "missing"), (b"other", "5 bytes that are not what the record weighed")]
)
def test_the_script_must_be_the_one_that_was_weighed(sweep, script, reason):
    path = sweep / "2" / "train_gpt.py"
    path.unlink() if script is None else path.write_bytes(script)
    assert reason in why(sweep)


def test_replaced_runs_are_listed(sweep):
    make_run(sweep, "3", 42, 1.59, finished="2026-05-02T10:00:00+00:00")
    publish(sweep)
    readme = (sweep / "submission" / "default" / "README.md").read_text()
    assert "| 42 | 1 | complete | 1.60323456 | 3 stands for this seed |" in readme


def test_two_codes_for_a_seed_are_refused_with_the_other_arms_written(sweep):
    make_run(sweep, "3", 42, script=b"other\n")
    make_run(sweep, "4", 1, arm="b")
    with pytest.raises(UserError, match="code differs"):
        publish(sweep)
    assert [p.name for p in (sweep / "submission").iterdir()] == ["b"]
    assert "code differs" in read_json(sweep / "summary.json")["arms"][0]["submission"]["why"]


@pytest.mark.parametrize("arm", ["../../etc/passwd", "a/b", "..", "", ".hidden", "x" * 400, "ttt=a\nb", "🙂"])
def test_an_arm_is_one_path_component(tmp_path, arm):
    make_run(tmp_path, "0", 1, arm=arm)
    publish(tmp_path)
    (folder,) = (tmp_path / "submission").iterdir()
    assert (folder / "README.md").exists()
    assert not folder.name.startswith(".")
    assert len(folder.name) < 140


def test_arms_with_the_same_label_have_folders_of_their_own(tmp_path):
    for i in range(2):
        make_run(tmp_path, str(i), 1, arm_sha256=f"{i}" * 64)
    publish(tmp_path)
    assert sorted(p.name for p in (tmp_path / "submission").iterdir()) == ["default-00000000", "default-11111111"]


def test_a_full_disk_leaves_the_old_folder(sweep, monkeypatch):
    summary = publish(sweep)
    folder = sweep / "submission" / "default"
    before = contents(folder)
    edit(sweep / "0", None, verdict="needs argument (x)")
    calls = []

    def full(fd):
        calls.append(fd)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_submission(sweep, summary, "default")
    assert contents(folder) == before
    assert [p.name for p in (sweep / "submission").iterdir()] == ["default"]


def test_a_read_only_disk_is_one_message_and_changes_nothing(sweep, monkeypatch):
    publish(sweep)
    before = contents(sweep / "submission" / "default"), (sweep / "summary.json").read_bytes()

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(sweep), "mkdir", refuse)
    monkeypatch.setattr("pgolf.files.open", refuse, raising=False)
    with pytest.raises(UserError, match="cannot be written: Read-only file system; what was there is unchanged"):
        publish(sweep)
    monkeypatch.undo()
    assert (contents(sweep / "submission" / "default"), (sweep / "summary.json").read_bytes()) == before


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "x"
    write_folder(folder, {"a": b"1"})
    rename = type(folder).rename

    def refuse(self, target):
        if target == folder and self.exists() and (self / "b").exists():
            raise PermissionError(1, "Operation not permitted")
        return rename(self, target)

    monkeypatch.setattr(type(folder), "rename", refuse)
    with pytest.raises(UserError, match="not permitted"):
        write_folder(folder, {"b": b"2"})
    assert contents(folder) == {"a": b"1"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"val_bpb": "1.6"}, "val_bpb: is '1.6', must be number"),
        ({"val_bpb": None}, "val_bpb: is None, must be number"),
        ({"seeds": [1, 1]}, "seeds: is [1, 1], must have uniqueItems True"),
        ({"seeds": [True]}, "seeds[0]: is True, must be integer"),
        ({"date": "today"}, "date: is 'today', must have pattern"),
        ({"extra": 1}, "extra: is not a known field"),
        ({"compliance": {"size": "yes"}}, "compliance.size: is 'yes', must be boolean"),
        ({"bytes_total": 0}, "bytes_total: is 0, must have minimum 1"),
    ],
)
def test_the_schema_refuses(sweep, changes, reason):
    publish(sweep)
    good = read_json(sweep / "submission" / "default" / "submission.json")
    assert violations(good, submission_schema()) == []
    (found,) = violations(good | changes, submission_schema())
    assert found.startswith(reason)
    assert any("author is missing" in v for v in violations({}, submission_schema()))


def test_requirements_are_exact_and_installable():
    text = requirements({"python": "3.11.9", "packages": {"torch": "2.13.0+cpu", "numpy": "2.1.0"}})
    assert text == "# Python 3.11.9\nnumpy==2.1.0\ntorch==2.13.0  # ran as 2.13.0+cpu\n"


def test_json_is_plain(sweep):
    publish(sweep)
    data = (sweep / "submission" / "default" / "submission.json").read_bytes()
    assert not data.startswith(b"\xef\xbb\xbf")
    assert json.loads(data)["seeds"] == list(BPB)


@pytest.fixture
def folder(sweep):
    for job in "012":
        edit(
            sweep / job,
            None,
            author={"author": "A. Person", "github_id": None, "name": "Small model", "blurb": "Small."},
        )
    publish(sweep)
    return sweep / "submission" / "default"


def test_a_folder_is_handed_in_under_its_date_and_name(folder, tmp_path, capsys):
    assert main([str(folder), "--into", str(tmp_path / "records" / "track")]) == 0
    made = tmp_path / "records" / "track" / "2026-05-01_Small_model"
    assert contents(made) == contents(folder)
    assert capsys.readouterr().out.splitlines() == [str(made), "still needed in submission.json: github_id"]
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_nothing_is_needed_when_all_is_there(folder, tmp_path, capsys):
    said(folder, github_id="aperson")
    assert main([str(folder), "--into", str(tmp_path / "records"), "--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.submission", 0)
    made = tmp_path / "records" / "2026-05-01_Small_model"
    assert (value["folder"], value["still_needed"]) == (str(made), [])
    assert main([str(folder), "--into", str(tmp_path / "records"), "--json"]) == 2
    assert "is there already" in programs.refused(capsys.readouterr().out, 2)
    assert main([str(folder), "--json"]) == 2
    assert "--into" in programs.refused(capsys.readouterr().out, 2)


def said(folder, **changes):
    """Change submission.json as a person would."""
    path = folder / "submission.json"
    path.write_text(json.dumps(read_json(path) | changes))


def refused(folder, into, capsys):
    before = contents(into) if into.is_dir() else None
    assert main([str(folder), "--into", str(into)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("pgolf: ")
    assert error.count("\n") == 1
    assert (contents(into) if into.is_dir() else None) == before, "nothing is left behind"
    return error


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": None}, "it has no name"),
        ({"name": "  "}, "it has no name"),
        ({"name": 7}, "it has no name"),
        ({"name": "a/b"}, "has a path separator"),
        ({"name": "..\\x"}, "has a path separator"),
        ({"name": ".."}, "no letter or digit"),
        ({"name": "🙂"}, "no letter or digit"),
        ({"date": "today"}, "not a day"),
        ({"date": None}, "not a day"),
        ({"date": "2026-02-30"}, "not a day"),
        ({"val_bpb": 1.5}, "its audit fails: "),
    ],
)
def test_what_cannot_be_handed_in(folder, tmp_path, capsys, changes, reason):
    said(folder, **changes)
    assert reason in refused(folder, tmp_path / "records", capsys)


@pytest.mark.parametrize(("name", "called"), [("a b\nc: d", "a_b_c_d"), (".hidden", "hidden"), ("x" * 400, "x" * 120)])
def test_a_name_is_made_one_path_component(folder, tmp_path, name, called):
    said(folder, name=name)
    assert main([str(folder), "--into", str(tmp_path / "records")]) == 0
    assert [path.name for path in (tmp_path / "records").iterdir()] == [f"2026-05-01_{called}"]


def test_what_is_there_is_never_replaced(folder, tmp_path, capsys):
    (tmp_path / "2026-05-01_Small_model").write_text("mine")
    assert main([str(folder), "--into", str(tmp_path)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "2026-05-01_Small_model").read_text() == "mine"


def test_a_folder_that_is_no_submission(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "cannot be read" in refused(tmp_path / "empty", tmp_path / "records", capsys)
    (tmp_path / "empty" / "submission.json").write_text("[]")
    assert "must be a JSON object" in refused(tmp_path / "empty", tmp_path / "records", capsys)


def test_a_folder_in_the_folder_is_refused(folder, tmp_path, capsys):
    (folder / "notes").mkdir()
    assert "notes: cannot be read" in refused(folder, tmp_path / "records", capsys)


def test_a_read_only_place_is_one_message(folder, tmp_path, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(folder), "mkdir", refuse)
    assert "cannot be written: Read-only file system" in refused(folder, tmp_path / "records", capsys)
