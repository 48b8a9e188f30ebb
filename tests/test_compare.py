"""Comparing results of every origin, the public shapes of submission.json among them."""

import subprocess
import sys

import pytest

from pgolf.compare import main, scores
from pgolf.results.baselines import baselines
from pgolf.submission import publish
from tests import programs
from tests.audit_cases import write as write_files
from tests.audit_cases.folders import SEEDS, folder
from tests.audit_cases.legal import TABLES
from tests.sweeps import make_plan, make_run, write

TABLE = {"1337": 1.11550587, "42": 1.11628915, "7": 1.11666477}
LOSS = {"1337": 1.88347869, "42": 1.88480123, "7": 1.88543543}
SHAPES = {
    "seed_results": {
        "seed_results": {s: {"val_bpb": b, "val_loss": LOSS[s]} for s, b in TABLE.items()},
        "seeds": [1337, 42, 7],
    },
    "seeds as a table": {"seeds": {s: {"val_bpb": b, "val_loss": LOSS[s]} for s, b in TABLE.items()}},
    "list of rows": {"seed_results": [{"seed": int(s), "val_bpb": b, "val_loss": LOSS[s]} for s, b in TABLE.items()]},
    "flat": {f"val_{k}_seed{s}": v for k, t in (("bpb", TABLE), ("loss", LOSS)) for s, v in t.items()},
    "text": {"seed_results": {f"seed_{s}": {"val_bpb": str(b), "val_loss": str(LOSS[s])} for s, b in TABLE.items()}},
    "numbers": {"seed_results": TABLE, "val_loss": 1.88457178, "val_bpb": 1.11615326},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_public_shapes_read_the_same(tmp_path, shape):
    write(tmp_path / "submission.json", SHAPES[shape])
    found = scores(str(tmp_path))
    assert found.bpb == TABLE
    assert found.nats_per_bpb == pytest.approx(1.6885, abs=1e-4)
    assert bool(found.notes) == (shape == "text")


def test_only_a_mean(tmp_path):
    write(
        tmp_path / "submission.json", {"val_bpb": 1.0282, "val_bpb_std": 0.0013, "seeds": [1, 2, 3], "val_loss": None}
    )
    found = scores(str(tmp_path / "submission.json"))
    assert (found.sample.n, found.sample.mean, found.sample.std, found.nats_per_bpb) == (3, 1.0282, 0.0013, None)
    assert found.notes == ("results by seed are not stated, only the mean of 3",)


def test_what_is_not_stated_is_read_from_the_logs(tmp_path):
    write_files(folder(changes={"seeds": ..., "seed_results": ..., "val_loss": ...}), tmp_path)
    found = scores(str(tmp_path))
    assert found.bpb == {str(s): b for s, b in SEEDS.items()}
    assert found.nats_per_bpb == pytest.approx(2.5831, abs=1e-4)
    assert [note.partition(" (")[0] for note in found.notes] == [
        "results by seed are read from its logs",
        "val_loss is read from its logs",
    ]


def test_what_is_not_plausible_is_remarked(tmp_path, capsys):
    low = {s: b - 0.19 for s, b in SEEDS.items()}
    step = "step:4900/20000 val_loss:2.9447 val_bpb:1.1400 train_time:588000ms\n"
    write_files(folder(scores=low, logs={"step": step}), tmp_path)
    assert main([BASELINE, str(tmp_path)]) == 0
    assert "note on B: evaluation gains 0.2394 bpb, from 1.14" in capsys.readouterr().out


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_every_spelling_are_read(tmp_path, name):
    (tmp_path / "submission.json").write_text(folder(changes=TABLES[name])["submission.json"])
    assert (
        scores(str(tmp_path)).bpb == {str(s): round(b, 6) for s, b in SEEDS.items()} or name == "sizes by other names"
    )


def test_contradictions_are_noted(tmp_path):
    rows = {"1": {"val_bpb": 1.0}, "2": {"val_bpb": 1.1}}
    write(tmp_path / "submission.json", {"val_bpb": 1.01, "val_bpb_std": 0.05, "seed_results": rows})
    notes = scores(str(tmp_path)).notes
    assert notes[0] == "val_bpb is stated as 1.01, the seeds give 1.05000000"
    assert notes[1].endswith("the seeds give 0.07071068 (it divides by n, not n − 1)")


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    make_plan(folder, **{"default": [1, 2, 3], "ttt=a:b": [1, 2, 3]})
    for i, bpb in enumerate((1.6, 1.601, 1.602)):
        make_run(folder, str(i), i + 1, bpb)
        make_run(folder, str(i + 3), i + 1, bpb - 0.1, arm="ttt=a:b")
    return folder


def test_two_arms_of_a_sweep(sweep, capsys):
    assert main([f"{sweep}:default", f"{sweep}:ttt=a:b"]) == 0
    out = capsys.readouterr().out
    for line in ("B − A                     -0.10000000 bpb", "Welch", "p = 2.6", "95 % interval", "the bar is met"):
        assert line in out, (line, out)
    assert "-0.17328680 nats per token" in out
    assert main(["--json", f"{sweep}:default", f"{sweep}:ttt=a:b"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.compare", 0)
    assert value["difference_bpb"] == pytest.approx(-0.1)
    assert value["difference_nats"] == pytest.approx(-0.1732868)
    assert value["a"]["val_bpb"] == {"1": 1.6, "2": 1.601, "3": 1.602}
    assert (value["test"]["name"], value["no_test"], value["record_bar"]["met"]) == ("Welch", None, True)
    assert f"p = {value['test']['p']:.4g}" in out
    assert [r["unit"] for r in value["record_bar"]["readings"]] == ["nats per token", "bits per byte", "nats per byte"]


def test_run_submission_and_sweep_agree(sweep):
    publish(sweep)
    arm = scores(f"{sweep}:default")
    folder = scores(str(sweep / "submission" / "default"))
    assert (arm.bpb, arm.sample) == (folder.bpb, folder.sample)
    assert scores(str(sweep / "0")).bpb == {"1": 1.6}


def test_single_figures_have_no_test(sweep, capsys):
    assert main([str(sweep / "0"), str(sweep / "3")]) == 0
    assert "none: at least one side needs two results" in capsys.readouterr().out
    assert main([str(sweep / "0"), str(sweep / "3"), "--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.compare", 0)
    assert (value["test"], value["record_bar"]) == (None, None)
    assert value["no_test"] == "at least one side needs two results or a stated std"
    assert value["no_record_bar"] == "one result of B cannot be tested"


def test_against_a_single_figure(sweep, capsys):
    assert main([str(sweep / "0"), f"{sweep}:ttt=a:b"]) == 0
    assert "one-sample, B against the other's single figure" in capsys.readouterr().out


def test_nats_are_of_bs_stream_or_not_known(sweep, tmp_path, capsys):
    write(tmp_path / "submission.json", {"seed_results": TABLE})
    assert main([f"{sweep}:default", str(tmp_path / "submission.json")]) == 0
    out = capsys.readouterr().out
    assert "nats per token not known" in out
    assert "cannot be said: B states no val_loss" in out
    assert main([str(tmp_path / "submission.json"), f"{sweep}:default"]) == 0
    assert "decided per token in nats: the bar is not met" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "a table of 0 results"),
        ('"text"', "must be a JSON object, is str"),
        ("{}", "no val_bpb that is a number, and no results by seed (related fields: none)"),
        ('{"val_bpb": "good"}', "related fields: val_bpb"),
        ('{"val_bpb": true}', "no val_bpb"),
        ('{"val_bpb": NaN}', "NaN is not a JSON number"),
        (b"\xff\xfe{}", "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        (None, "no such file, folder or baseline"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(tmp_path, capsys, content, message):
    path = tmp_path / "submission.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([str(path), str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pgolf: ")
    assert message in err
    assert main(["--json", str(path), str(path)]) == 2
    assert err == f"pgolf: {programs.refused(capsys.readouterr().out, 2)}\n"


def test_which_arm_which_row(sweep, tmp_path, capsys):
    assert main([str(sweep), str(sweep)]) == 2
    assert "has 2 arms; say which" in capsys.readouterr().err
    write(tmp_path / "board.json", [{"folder": "x", "val_bpb": 1.1}, {"folder": "y", "val_bpb": 1.2}])
    assert scores(f"{tmp_path}/board.json:x").sample.mean == 1.1
    assert main([f"{tmp_path}/board.json:z", str(sweep / "0")]) == 2
    assert "a table of 2 results" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), str(sweep / "0")]) == 2


def test_every_baseline_has_figures_of_its_own_stream():
    assert len(baselines()) > 40
    for name in baselines():
        found = scores(name)
        assert 1.0 < found.sample.mean < 1.3, name
        assert found.nats_per_bpb is None or 1.6 < found.nats_per_bpb < 2.6, name
        assert all(1.0 < bpb < 1.3 for bpb in found.bpb.values()), name


BASELINE = "2026-03-25_ValCalib_GPTQ_XSA_BigramHash3072"


@pytest.mark.parametrize(("gain", "met"), [(0.002, "no"), (0.0028, "no"), (0.0045, "yes"), (0.02, "yes")])
def test_a_claim_is_decided_per_token(tmp_path, capsys, gain, met):
    ours = [bpb - gain for bpb in scores(BASELINE).bpb.values()]
    rows = {str(s): {"val_bpb": b, "val_loss": b * 1.6885} for s, b in enumerate(ours)}
    write(tmp_path / "submission.json", {"seed_results": rows})
    assert main([BASELINE, str(tmp_path)]) == 0
    out = capsys.readouterr().out
    readings = {line[:14]: line.split()[-1] for line in out.splitlines() if line.startswith(("nats per", "bits per"))}
    assert readings["nats per token"] == met
    assert readings["bits per byte "] == ("yes" if gain == 0.02 else "no")
    assert f"decided per token in nats: the bar is {'met' if met == 'yes' else 'not met'}" in out


def test_one_seed_claims_nothing(sweep, capsys):
    assert main([BASELINE, str(sweep / "0")]) == 0
    assert "cannot be said: one result of B cannot be tested" in capsys.readouterr().out


def test_a_baseline_that_is_not_there_has_a_neighbour(capsys):
    assert main([BASELINE[:-1], BASELINE]) == 2
    assert f"Did you mean '{BASELINE}'?" in capsys.readouterr().err


def test_baselines_are_listed(capsys):
    assert main(["--baselines"]) == 0
    assert f"{BASELINE} " in capsys.readouterr().out
    assert main(["--baselines", "--json"]) == 0
    listed = programs.said(capsys.readouterr().out, "pgolf.compare.baselines", 0)["baselines"]
    assert {*listed} == {*baselines()}
    assert listed[BASELINE].keys() == {"n", "mean", "std"}


def test_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "submission.json").write_bytes(b'\xef\xbb\xbf{"val_bpb": 1.1}')
    assert scores(str(tmp_path)).sample.mean == 1.1


def test_as_a_command(tmp_path):
    found = subprocess.run(
        [sys.executable, "-m", "pgolf.compare", "no/such", "thing"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1
