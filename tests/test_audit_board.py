"""A tree of folders in one process: the table, its ranks and its page; and the other options of the command."""

import pytest

from pgolf.audit.__main__ import main
from pgolf.audit.rules import explain, sections
from tests import programs
from tests.audit_cases import CASES, write
from tests.audit_cases.folders import SEEDS, folder, plus

LOWER = {seed: bpb - 0.01 for seed, bpb in SEEDS.items()}


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "records"
    write(folder(), root / "track_10min/good")
    write(folder(scores=LOWER), root / "track_10min/better")
    write(folder(scores=LOWER, changes={"val_bpb": 1.07}), root / "wrong")
    write({"notes.txt": "nothing"}, root / "no_submission")
    (root / "loop").symlink_to(root, target_is_directory=True)
    return root


def test_the_table_is_by_score_and_only_what_does_not_fail_has_a_rank(tree, capsys, tmp_path):
    page = tmp_path / "audit.html"
    assert main(["--all", str(tree), "--page", str(page)]) == 1
    head, *rows, count, told = capsys.readouterr().out.splitlines()
    assert head.split() == ["rank", "folder", "val_bpb", "n", "std", "bytes", "verdict"]
    assert [row.split()[:3] for row in rows] == [
        ["1", "track_10min/better", "1.08020"],
        ["–", "wrong", "1.08020"],
        ["2", "track_10min/good", "1.09020"],
    ]
    assert [row.split("  ")[-1] for row in rows] == ["consistent", "fail (mistake 25)", "consistent"]
    assert count.startswith("3 folder(s) in ")
    assert count.endswith(": 2 consistent, 0 needs argument, 1 fail")
    assert told == f"page {page}"
    assert "val_bpb is stated as 1.07" in page.read_text()
    assert main(["--all", str(tree), "--json"]) == 1
    value = programs.said(capsys.readouterr().out, "pgolf.audit.all", 1)
    assert [(f["folder"], f["val_bpb"], f["verdict"]) for f in value["folders"]] == [
        ("track_10min/better", pytest.approx(1.0802, abs=1e-5), "consistent"),
        ("wrong", pytest.approx(1.0802, abs=1e-5), "fail"),
        ("track_10min/good", pytest.approx(1.0902, abs=1e-5), "consistent"),
    ]
    assert (value["verdicts"], value["page"]) == ({"consistent": 2, "needs argument": 0, "fail": 1}, None)


def test_every_labelled_folder_in_one_table(tmp_path, capsys):
    for i, case in enumerate(CASES[::4]):
        write(case.files(), tmp_path / f"{i}")
    assert main(["--all", str(tmp_path)]) == 1
    assert f"{len(CASES[::4])} folder(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all"], "usage: "),
        (["--all", "no/such"], "not a folder"),
        (["--all", ".", "--pages", "x"], "usage: "),
        (["--explain", "mistake 99"], "no such rule (allowed: C1, C2"),
        (["--explain"], "no such rule"),
        (["--explain", "plausibilty"], "Did you mean 'plausibility'?"),
    ],
)
def test_misuse_is_one_message_and_exit_code_2(words, message, capsys):
    assert main(words) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert main([*words, "--json"]) == 2
    assert message in programs.refused(capsys.readouterr().out, 2)


def test_an_empty_tree_is_misuse(tmp_path, capsys):
    assert main(["--all", str(tmp_path)]) == 2
    assert "no folder below it holds submission.json" in capsys.readouterr().err


def test_every_mistake_of_the_list_is_explained(capsys):
    assert main(["--explain", "20"]) == 0
    assert capsys.readouterr().out.startswith("mistake 20\n\n")
    assert main(["--explain", "20", "--json"]) == 0
    assert programs.said(capsys.readouterr().out, "pgolf.audit.explain", 0)["rule"] == "mistake 20"
    for n in range(1, 35):
        assert explain(f"mistake {n}").partition("\n")[0] in sections()


def test_one_object_for_programs(tmp_path, capsys):
    made = plus({"train_seed42.log": None}, changes={"val_bpb": 1.2})
    assert main([str(write(made, tmp_path)), "--json"]) == 1
    value = programs.said(capsys.readouterr().out, "pgolf.audit", 1)
    assert value["verdict"] == "fail"
    assert {f["rule"] for f in value["findings"] if f["verdict"] == "fail"} == {"mistake 25", "mistake 27"}
    assert all(f["explained"].startswith("pgolf/audit/rules.md#") for f in value["findings"])


def test_the_short_report_names_the_gravest_first_and_counts_the_rest(tmp_path, capsys):
    made = folder(changes={"author": ..., "github_id": ...}, scores={s: b - 0.2 for s, b in SEEDS.items()})
    made = {k: v.replace("588000ms", "700000ms") if k.endswith(".log") else v for k, v in made.items()}
    made["README.md"] = "nothing\n"
    assert main([str(write(made, tmp_path))]) == 1
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == "verdict fail (mistake 18, mistake 26); needs argument (C1-C4)"
    assert rest[0].startswith("fail            mistake 18 ")
    assert rest[-2].startswith("and 2 more (")
    assert rest[-1] == "the rules: pgolf/audit/rules.md#mistake-18, or --explain 'mistake 18'"
    assert main([str(tmp_path), "--long"]) == 1
    assert "author is missing" in capsys.readouterr().out
