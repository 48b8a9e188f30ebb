"""`python -m pgolf.runs`: what is below a folder and how it stands, and what is removed when asked."""

import json
from pathlib import Path

import pytest

from pgolf.machine.liveness import Process
from pgolf.results.attempts import owned
from pgolf.results.plan import agreed
from pgolf.runs import main
from tests import programs
from tests.sweeps import died, make_run, sha

ARM = sha(b"default")


@pytest.fixture
def place(tmp_path) -> Path:
    """A sweep with a complete run, a lost one and an old attempt, and a run of its own that cannot be read."""
    sweep = tmp_path / "sweeps" / "s"
    sweep.mkdir(parents=True)
    agreed(sweep, [{"arm": "default", "arm_sha256": ARM, "program_sha256": "p", "seeds": [1, 2, 3]}], 0)
    checkpoint = make_run(sweep, f"{ARM[:8]}_seed1", 1) / "checkpoints" / "step00000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights").write_bytes(bytes(3_000_000))
    lost = died(sweep, f"{ARM[:8]}_seed2", 2, "running")
    record = json.loads((lost / "record.json").read_text())
    gone = Process.this(lost).section(3) | {"start": 1}
    (lost / "record.json").write_text(json.dumps(record | {"process": gone}))
    (lost / "checkpoints" / "step00000002").mkdir(parents=True)
    died(sweep, f"attempts/{ARM[:8]}_seed2_1", 2, "failed", "rank 1 died")
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "record.json").write_text("{")
    return tmp_path


def test_every_run_and_sweep_has_a_line(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert main([]) == 0
    said = capsys.readouterr().out.splitlines()
    rows = {line.split("  ")[0]: line.split() for line in said[1:-1]}
    assert rows["runs/broken"][1] == "unreadable"
    name = f"sweeps/s/{ARM[:8]}"
    assert rows[f"{name}_seed1"][1:5] == ["complete", "1.60000000", "3.0", "MB"]
    assert rows[f"{name}_seed2"][1] == "lost"
    assert rows[f"sweeps/s/attempts/{ARM[:8]}_seed2_1"][1:3] == ["failed", "attempt"]
    assert said[-1].startswith("sweep sweeps/s: 1 of 3 complete, 1 lost, 3.")


def test_every_run_and_sweep_has_an_object(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    assert main(["--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.runs", 0)
    states = {row["run"]: row["state"] for row in value["runs"]}
    name = f"sweeps/s/{ARM[:8]}"
    attempt = f"sweeps/s/attempts/{ARM[:8]}_seed2_1"
    assert states == {
        **{"runs/broken": "unreadable", f"{name}_seed1": "complete", f"{name}_seed2": "lost"},
        attempt: "failed attempt",
    }
    whole = next(row for row in value["runs"] if row["state"] == "complete")
    assert (whole["val_bpb"], whole["fault"], whole["bytes"] > 3_000_000) == (1.6, None, True)
    assert "not JSON" in next(row["fault"] for row in value["runs"] if row["run"] == "runs/broken")
    (sweep,) = value["sweeps"]
    assert (sweep["planned"], sweep["states"], sweep["fault"]) == (3, {"complete": 1, "lost": 1}, None)
    assert main(["--json", "--clean", "checkpoints"]) == 0
    (done,) = programs.said(capsys.readouterr().out, "pgolf.runs.clean", 0)["cleaned"]
    assert (done["folder"], done["kept"]) == (f"{name}_seed1", None)
    assert done["bytes_before"] - done["bytes_after"] == 3_000_000
    assert main(["nowhere", "--json"]) == 2
    assert programs.refused(capsys.readouterr().out, 2) == "nowhere: not a folder"
    assert main(["--clean", "all", "--json"]) == 2
    assert "invalid choice: 'all'" in programs.refused(capsys.readouterr().out, 2)


def test_checkpoints_of_complete_runs_go_and_those_that_can_be_resumed_stay(place, capsys):
    sweep = place / "sweeps" / "s"
    first = sweep / f"{ARM[:8]}_seed1"
    with owned(first):
        assert main([str(place), "--clean", "checkpoints"]) == 0
    assert "kept: " in capsys.readouterr().out
    assert (first / "checkpoints").exists()
    assert main([str(place), "--clean", "checkpoints"]) == 0
    assert "3.0 MB before, 0.0 MB now" in capsys.readouterr().out
    assert not (first / "checkpoints").exists()
    assert (sweep / f"{ARM[:8]}_seed2" / "checkpoints").exists()
    assert main([str(place), "--clean", "checkpoints"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_of_old_attempts_the_records_stay(place):
    attempt = place / "sweeps" / "s" / "attempts" / f"{ARM[:8]}_seed2_1"
    assert main([str(place / "sweeps"), "--clean", "attempts"]) == 0
    assert {path.name for path in attempt.iterdir()} <= {"record.json", ".lock"}


def test_an_edited_plan_is_said_and_a_folder_that_is_none_refused(place, capsys):
    plan = place / "sweeps" / "s" / "plan.json"
    plan.write_text(plan.read_text().replace("3", "4"))
    assert main([str(place)]) == 0
    assert "was changed after it was written" in capsys.readouterr().out
    assert main([str(place / "nowhere")]) == 2
    assert main([str(place / "runs" / "broken" / "record.json")]) == 2
