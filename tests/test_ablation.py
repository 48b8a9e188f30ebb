"""The tables of an ablation: effects are paired by seed, arms that are not there are named, arithmetic by hand."""

import pytest

from pgolf import ablation
from pgolf.ablation import main
from pgolf.results.effects import arm_rows, by_arm, cells_of, effects
from pgolf.results.runfolder import Run
from tests import programs
from tests.sweeps import make_run, sha, write

SCORES = {  # (bits, qat, seed) -> bpb: int4 costs .1 and .3, ste gains .02 at every seed but the last, where .05
    (6, "none", 1): 1.0,
    (6, "ste", 1): 0.98,
    (4, "none", 1): 1.1,
    (4, "ste", 1): 1.08,
    (6, "none", 2): 2.0,
    (6, "ste", 2): 1.95,
    (4, "none", 2): 2.3,
    (4, "ste", 2): 2.25,
}


def one(bits, qat, seed, bpb) -> Run:
    words = ["experiment=x", f"quant.bits={bits}", f"qat={qat}", f"seed.value={seed}", "machine.threads=1"]
    train = {"dev_bpb": {"averaged": bpb, "quantized": bpb + 0.01}, "parameters": 800}
    trace = [{"phase": phase, "bpb": bpb + 0.1 / chunk} for chunk in (1, 2) for phase in ("score", "adapt")]
    measured = {"evaluate": {"val_bpb": bpb, "trace": trace}, "train": train, "artifact": {"bytes": 100 * bits}}
    return Run(None, {"seed": seed, "overrides": words, **measured})


def cells():
    return cells_of([one(*key, bpb) for key, bpb in SCORES.items()])


def test_arms_are_told_by_the_words_in_which_they_differ():
    assert cells()[0].words == (("quant.bits", "6"), ("qat", "none"))
    rows = ablation.arms_table(arm_rows(cells())).splitlines()
    assert rows[2] == "| 6 | none | 2 | 1.5000 | 0.7071 | +0.0100 | 600 | 6.00 | – | – |"
    assert rows[4] == "| 4 | none | 2 | 1.7000 | 0.8485 | +0.0100 | 400 | 4.00 | +0.2000 | 0.3 |"


def test_an_effect_is_the_mean_over_seeds_of_pairs_that_agree_in_all_else():
    table = ablation.effects_table("All arms", effects(cells(), None)["All arms"])
    rows = {line.split(" | ")[0].lstrip("| "): line for line in table.splitlines()}
    assert rows["quant.bits=4"].startswith("| quant.bits=4 | 6 | 2 | 4 | +0.2000 | 0.1414 |")
    assert rows["qat=ste"].startswith("| qat=ste | none | 2 | 4 | -0.0350 | 0.0212 |")


def test_a_word_is_held_against_the_arm_that_is_not_given_it():
    runs = [
        (["experiment=x"], 1.0),
        (["experiment=x", "average=none"], 1.1),
        (["experiment=x", "model.lanes=null"], 1.3),
    ]
    cells = cells_of([Run(None, {"seed": 1, "overrides": o, "evaluate": {"val_bpb": b}}) for o, b in runs])
    for given in (cells, cells[::-1]):
        rows = {row["word"]: row for row in effects(given, None)["All arms"]}
        assert {word: row["against"] for word, row in rows.items()} == {"average=none": None, "model.lanes=null": None}
        assert rows["model.lanes=null"]["difference"] == pytest.approx(0.3)
    assert "| average=none | not given | 1 | 1 | +0.1000 |" in ablation.effects_table(
        "All arms", [rows["average=none"]]
    )


def test_effects_within_each_value_of_a_word():
    tables = [ablation.effects_table(title, rows) for title, rows in effects(cells(), "quant.bits").items()]
    six, four = tables
    assert six.startswith("quant.bits=6:")
    assert "| qat=ste | none | 2 | 2 | -0.0350 |" in six
    assert four.startswith("quant.bits=4:")


def test_running_bpb_is_that_of_the_chunks_scored(tmp_path):
    assert ablation.running(cells()[0]) == ([0.5, 1.0], [1.1, 1.05])
    ablation.draw(by_arm(cells()), tmp_path / "curves.svg")
    drawn = (tmp_path / "curves.svg").read_text()
    assert drawn.count("quant.bits=4 qat=ste") == 1, "one curve for an arm"


def swept(folder):
    """Two arms; one seed of the second is missing."""
    for job, (bits, seed, bpb) in enumerate([(6, 1, 1.0), (6, 2, 1.1), (4, 1, 1.2)]):
        make_run(folder, f"{job}_seed{seed}", seed, bpb, arm=f"quant.bits={bits}")
    arms = [{"arm": f"quant.bits={b}", "arm_sha256": sha(f"quant.bits={b}".encode()), "seeds": [1, 2]} for b in (6, 4)]
    write(folder / "plan.json", {"arms": arms})
    return folder


def test_the_command_line_reads_a_sweep_and_says_what_is_missing(tmp_path, capsys):
    assert main([str(swept(tmp_path))]) == 0
    shown = capsys.readouterr()
    assert "| quant.bits=4 | 6 | 1 | 1 | +0.2000 | – | – |" in shown.out
    assert "not in the tables: 1 run(s)" in shown.err
    assert "planned, and there is no record of it" in shown.err
    assert main([str(tmp_path), "--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.ablation", 0)
    assert [(arm["words"], arm["n"], arm["val_bpb"]) for arm in value["arms"]] == [
        ({"quant.bits": "6"}, 2, pytest.approx(1.05)),
        ({"quant.bits": "4"}, 1, 1.2),
    ]
    ((row,),) = (table["rows"] for table in value["effects"])
    assert (row["word"], row["against"], row["seeds"], row["p"]) == ("quant.bits=4", "6", 1, None)
    assert row["difference"] == pytest.approx(0.2)
    assert len(value["absent"]) == 1


def test_arms_stand_in_the_order_of_the_plan(tmp_path, capsys):
    swept(tmp_path)
    for old, new in (("0_seed1", "b_seed1"), ("1_seed2", "c_seed2"), ("2_seed1", "a_seed1")):
        (tmp_path / old).rename(tmp_path / new)
    assert main([str(tmp_path)]) == 0
    assert "| quant.bits=4 | 6 | 1 | 1 | +0.2000 | – | – |" in capsys.readouterr().out


def test_the_page_has_every_number_and_the_gain_over_the_same_artifact(tmp_path, capsys):
    for job, (arm, option, bpb) in enumerate([("ttt=x", "LoraScoreFirst", 1.5), ("ttt=none", "NoTTT", 1.6)]):
        parts = [{"group": "ttt", "option": option, "summary": "what it is"}]
        make_run(tmp_path / "sweep", f"{job}_seed1", 1, bpb, arm=arm, techniques=parts)
    make_run(tmp_path / "sweep", "2_seed2", 2, 1.9, arm="ttt=x")
    assert main([str(tmp_path / "sweep"), "--page", str(tmp_path / "page.svg")]) == 0
    shown = capsys.readouterr().out
    assert "| ttt=x | 2 | 1.7000 | 1.7050 | 0.0050 | 0.1000 |" in shown
    assert "| ttt=none | 1 |" not in shown
    assert "gain of learning" in (tmp_path / "page.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nowhere"], "nowhere: not a folder"), (["SWEEP", "--by", "quant.bitz"], "Did you mean 'quant.bits'?")],
)
def test_mistakes_are_one_message(tmp_path, capsys, words, message):
    swept(tmp_path)
    assert main([word.replace("SWEEP", str(tmp_path)) for word in words]) == 2
    assert message in capsys.readouterr().err
    assert main([*(word.replace("SWEEP", str(tmp_path)) for word in words), "--json"]) == 2
    assert message in programs.refused(capsys.readouterr().out, 2)
