"""The auditor of folders: a clean one passes without a word, and every mistake planted in it is found by its rule."""

import base64
import bz2
import json
import lzma
import re
import zlib
from pathlib import Path

import brotli
import pytest
import zstandard

from pgolf.audit.finding import overall
from pgolf.audit.folder import audit_folder
from pgolf.audit.folder_code import read_code, scan
from pgolf.audit.folder_log import read_log
from pgolf.submission import publish
from tests.sweeps import RECORD, edit, make_plan, make_run, write

BPB = {1337: 1.11550587, 42: 1.11628915, 7: 1.11666477}
AUTHOR = {"author": "A. Person", "github_id": "aperson", "name": "Small", "blurb": "A small model."}


@pytest.fixture
def ours(tmp_path) -> Path:
    """A record's submission folder as pgolf writes it."""
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    make_plan(sweep, default=list(BPB))
    for job, (seed, bpb) in enumerate(BPB.items()):
        edit(make_run(sweep, str(job), seed, bpb, text=RECORD), None, author=AUTHOR)
    (arm,) = publish(sweep)["arms"]
    assert arm["submission"]["written"], arm["submission"]
    return sweep / "submission" / "default"


SCRIPT = b"import torch\n\nprint('trained')\n"
THEIR_LOG = """\
W0324 07:15:10.419000 100096 torch/distributed/run.py:851] Setting OMP_NUM_THREADS
Running Python 3.12 PyTorch 2.9.1 on 8 x H100
val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:62021632
lr:embed=0.035 ws:8 wall:600s seed:{seed}
step:0/20000 val_loss:6.9309 val_bpb:4.1049 train_time:0ms
step:6152/20000 val_loss:1.8998 val_bpb:1.1252 train_time:599042ms
gptq:calibrated 68 layers in 0.6s
Serialized model: 130956873 bytes
Code size: {code} bytes
Serialized model int6+zstd: 15308671 bytes
Total submission size int6+zstd: {total} bytes
final_roundtrip_exact val_loss:{high:.8f} val_bpb:1.14000000 eval_time:6000ms
final_ttt val_loss:{loss:.4f} val_bpb:{bpb:.4f} eval_time:541278ms
final_ttt_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}
"""
RATIO = 1.6885


@pytest.fixture
def theirs(tmp_path) -> Path:
    """A folder as others write them, without a fault."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "train_gpt.py").write_bytes(SCRIPT)
    for seed, bpb in BPB.items():
        figures = {"code": len(SCRIPT), "total": 15308671 + len(SCRIPT), "loss": bpb * RATIO, "high": 1.14 * RATIO}
        (folder / f"train_seed{seed}.log").write_text(THEIR_LOG.format(seed=seed, bpb=bpb, **figures))
    rows = {str(s): {"val_bpb": round(b, 5), "val_loss": round(b * RATIO, 4)} for s, b in BPB.items()}
    value = {
        "author": "A. Person",
        "github_id": "aperson",
        "val_bpb": 1.1162,
        "seed_results": rows,
        "bytes_code": len(SCRIPT),
    }
    write(folder / "submission.json", value | {"val_loss": 1.8846, "bytes_total": 15308671 + len(SCRIPT)})
    table = "".join(f"| {s} | **{b:.5f}** | {b * RATIO:.4f} |\n" for s, b in BPB.items())
    (folder / "README.md").write_text(f"# Small\n\nval_bpb 1.1162\n\n| seed | bpb | loss |\n|---|---|---|\n{table}")
    return folder


def found(folder: Path, rule: str) -> list:
    return [f for f in audit_folder(folder) if f.rule == rule]


def substitute(path: Path, old: str, new: str, count: int = 1) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, (old, text)
    path.write_text(text.replace(old, new, count), encoding="utf-8")


def test_a_clean_folder_has_no_finding(ours, theirs):
    assert audit_folder(ours) == []
    assert audit_folder(theirs) == []


def test_what_is_still_needed_is_a_note(tmp_path):
    make_run(tmp_path, "0", 1)
    publish(tmp_path)
    notes = audit_folder(tmp_path / "submission" / "default")
    assert {f.verdict for f in notes} == {"note"}
    assert "author is still needed" in [f.what for f in notes if f.rule == "mistake 26"]
    assert overall(notes) == "consistent"


LOG, JSON, README, CODE = "train_seed42.log", "submission.json", "README.md", "train_gpt.py"
PLANTED = [  # rule, verdict, file, what to replace, by what, and what must be said of it
    ("mistakes 1-6", "fail", LOG, r"val_loss:1.8\d+ val_bpb:1.11628915", "val_loss:1.50000000 val_bpb:1.11628915", "differs"),
    ("mistake 7", "needs argument", LOG, "tokens:62021632", "tokens:31010816", "31,010,816 tokens of validation text"),
    ("mistake 11", "needs argument", LOG, "Serialized", "best_averaging:ema val_bpb:1.1242\nSerialized", "chooses between"),
    ("mistake 18", "fail", LOG, "train_time:599042ms", "train_time:612000ms", "training took 612.000 s"),
    ("mistake 18", "note", LOG, "train_time:599042ms", "train_time:600090ms", "training took 600.090 s"),
    ("mistake 18", "fail", LOG, "layers in 0.6s", "layers in 12.6s", "calibration took 12.6 s after 599.0 s"),
    ("mistake 18", "needs argument", LOG, "gptq:calibrated 68 layers in 0.6s",
     "gptq:calibrating with self-generated\ngptq:calibrated 68 layers in 12.6s", "it says it read no data"),
    ("mistake 19", "fail", LOG, "eval_time:541278ms", "eval_time:641278ms", "evaluation took 641.3 s"),
    ("mistake 21", "fail", LOG, "int6+zstd: 15308671 bytes", "int6+zstd: 16308671 bytes", "are not the total"),
    ("mistake 21", "fail", CODE, "print", "print()\nprint", "train_gpt.py has 39 bytes"),
    ("mistake 21", "fail", CODE, "import torch", "import helpers", None),
    ("mistake 22", "fail", CODE, "print", "exec(open('other.py').read())\nprint", "executes another file"),
    ("mistake 22", "needs argument", CODE, "print", "exec(torch.load('x'))\nprint", "does not show as text"),
    ("mistake 22", "fail", CODE, "print", "import runpy; runpy.run_path('other.py')\nprint", "runs another file"),
    ("mistake 23", "needs argument", CODE, "print", "import os; os.system('lrzip x')\nprint", "starts a program"),
    ("mistake 24", "needs argument", CODE, "print", "import os; os.system('apt-get install x')\nprint", "installs or downloads"),
    ("mistake 24", "needs argument", CODE, "import torch", "import torch, urllib.request", "imports urllib.request"),
    ("mistake 24", "needs argument", CODE, "print", "torch.hub.load('x')\nprint", "downloads: torch.hub.load"),
    ("mistake 25", "fail", README, "1.11629", "1.11529", "seed 42: val_bpb is 1.11529, its log says 1.11628915"),
    ("mistake 25", "needs argument", README, "val_bpb 1.1162", "val_bpb 1.1155", "does not give the val_bpb"),
    ("mistake 25", "note", README, "| 42 |", "| 42 | x |", "a table row of 4 cells under a head of 3"),
    ("mistake 25", "fail", JSON, '"val_bpb": 1.1162', '"val_bpb": 1.11551', "is the best seed, not the mean"),
    ("mistake 25", "fail", JSON, '"val_bpb": 1.11629', '"val_bpb": 1.11529', "seed 42: val_bpb is 1.11529, train_seed42"),
    ("mistake 25", "fail", JSON, "1.115", "1.1", "seed 1337: val_bpb is 1.151"),
    ("mistake 25", "fail", JSON, '"val_loss": 1.8849', '"val_loss": 1.8811', "seed 42: val_loss is 1.8811"),
    ("mistake 25", "fail", JSON, '"val_loss": 1.8846', '"val_loss": 1.8831', "val_loss is stated as 1.8831"),
    ("mistake 25", "fail", JSON, '"bytes_total": 15308702', '"bytes_total": 15308700', "the logs give 15,308,70"),
    ("mistake 25", "needs argument", README, "# Small", "# Small, on 4x H100", "speaks of 4 GPU(s)"),
    ("mistake 25", "needs argument", JSON, '"author"', '"hardware": "1×NVIDIA H200", "author"', "speaks of 1 GPU(s)"),
    ("mistake 26", "fail", JSON, '"val_bpb": 1.1162', '"val_bpb": "1.1162"', "is '1.1162', which is not a number"),
    ("mistake 26", "fail", JSON, '"val_bpb": 1.1162', '"val_bpb": null', "val_bpb is None"),
    ("mistake 26", "fail", JSON, '"val_bpb": 1.1162', '"val_bpb": NaN', "NaN is not a JSON number"),
    ("mistake 26", "fail", JSON, '"val_bpb": 1.1162', '"val_bpb": 1.1162,', "is not JSON"),
    ("mistake 26", "fail", JSON, '"author"', '"github_id": "x", "author"', "'github_id' stands twice"),
    ("mistake 26", "fail", JSON, '"author": "A. Person", ', "", "author is missing"),
    ("mistake 26", "fail", JSON, "{", "\ufeff{", "byte-order mark"),
    ("mistake 27", "fail", LOG, r"(?s)Serialized.*", "", "cut short"),
    ("mistake 27", "fail", LOG, "step:6152", "[rank3]: Traceback (most recent call last):\nstep:6152", "holds a traceback"),
    ("mistake 28", "fail", LOG, "seed:42", "seed:43", "the run says 43"),
    ("mistake 28", "fail", LOG, "step:0", "\n".join(f"import m{i}" for i in range(9)) + "\nstep:0", "source of another script"),
    ("mistake 29", "note", LOG, "step:0", "gptq: 66 layers\n" * 8 + "step:0", "printed by every rank: gptq: 66 layers"),
    ("mistake 30", "fail", CODE, "print(", "print((", "does not parse"),
    ("mistake 31", "fail", JSON, '"author"',
     '"delta_vs_leaderboard_bpb": -0.02, "delta_vs_leaderboard_nats": -0.02, "author"', "not -0.02"),
    ("mistake 31", "fail", JSON, '"author"', '"p_value": 0.001, "comparison_baseline_bpb": 1.119, "author"', "it is 0."),
    ("mistake 34", "note", LOG, "PyTorch 2.9.1", "it", "does not name the PyTorch version"),
    ("C3", "fail", LOG, "Serialized", "prequant_ttt:epoch 1/21 loss=2.84\nSerialized", "before that text is scored"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "verdict", "name", "old", "new", "what"), PLANTED)
def test_planted_in_anybodys_folder(theirs, rule, verdict, name, old, new, what):
    text = (theirs / name).read_text(encoding="utf-8")
    pattern = old if old.startswith("(?s)") or "\\d" in old else re.escape(old)
    changed = re.sub(pattern, lambda _: new, text, count=1)
    assert changed != text
    (theirs / name).write_text(changed, encoding="utf-8")
    if "helpers" in new:
        (theirs / "helpers.py").write_text("")
        what = "uses helpers, a file beside it"
    matching = [f for f in found(theirs, rule) if f.verdict == verdict and what in f.what]
    assert matching, audit_folder(theirs)
    assert all(f.fix or f.verdict == "needs argument" for f in matching)


def rewrite(folder: Path, **changes) -> None:
    path = folder / "submission.json"
    value = json.loads(path.read_text())
    for dotted, new in changes.items():
        *above, last = dotted.split("__")
        inside = value
        for key in above:
            inside = inside[key]
        inside[last] = new
    write(path, value)


@pytest.mark.parametrize(
    ("changes", "rule", "what"),
    [
        ({"pgolf__receipts__42": [{"part": "qat", "what": "moved", "value": 0, "alive": False}]}, "mistake 33", "qat was on"),
        ({"pgolf__verdict__42": "fail (C3)"}, "C3", "the run's own verdict is fail (C3)"),
        ({"pgolf__verdict__42": "needs argument (mixture)"}, "mixture", "the run's own verdict is"),
        ({"pgolf__code_sha256": "0" * 64}, "mistake 28", "train_gpt.py is another file"),
        ({"pgolf__log_sha256__42": "0" * 64}, "mistake 27", "is not the log whose sha256"),
        ({"seed_results__42__val_tokens": 9}, "mistake 7", "seed 42: val_tokens is 9"),
        ({"seed_results__42__artifact_bytes": 9}, "mistake 25", "artifact_bytes is 9"),
        ({"seed_results__42__bytes_total": 16_000_001}, "mistake 20", "1 over 16,000,000"),
        ({"bytes_code": 9}, "mistake 21", "bytes_code is 9, train_gpt.py has 15 bytes"),
        ({"seed_results__42__train_time_s": 700.0}, "mistake 18", "train_time_s is 700, over 600"),
        ({"seed_results__42__eval_time_s": 700.0}, "mistake 19", "eval_time_s is 700, over 600"),
        ({"seeds": [1337, 42, 7, 9]}, "mistake 27", "no log of seed 9"),
        ({"seeds": [1337, 42, "7"]}, "mistake 26", "is '7', must be integer"),
        ({"extra": 1}, "mistake 26", "is not a known field"),
        ({"date": "now"}, "mistake 26", "must have pattern"),
    ],
)  # fmt: skip
def test_planted_in_our_json(ours, changes, rule, what):
    rewrite(ours, **changes)
    assert any(what in f.what for f in found(ours, rule)), audit_folder(ours)


@pytest.mark.parametrize(
    ("old", "new", "rule", "what"),
    [
        ("status=complete lines=", "status=complete lines=1", "mistake 27", "its end marker says 1"),
        ("status=complete", "status=failed", "mistake 27", "the run is failed"),
        ("end pgolf", "pgolf", "mistake 27", "is not the log whose sha256"),
        ("151,081,000 bytes in", "151,000,000 bytes in", "mistakes 1-6", "its val_loss, tokens and bytes give"),
        ("62,021,632 tokens", "62,000,000 tokens", "mistake 7", "62,000,000 tokens of validation text"),
    ],
)  # fmt: skip
def test_planted_in_our_log(ours, old, new, rule, what):
    substitute(ours / LOG, old, new)
    assert any(what in f.what for f in found(ours, rule)), audit_folder(ours)


def test_a_log_of_another_script(ours):
    (ours / CODE).write_text("print('other')\n")
    assert "is the log of another script" in " ".join(f.what for f in found(ours, "mistake 28"))


def test_a_seed_that_was_run_and_is_not_reported(theirs):
    (theirs / "train_seed99.log").write_text((theirs / LOG).read_text().replace("seed:42", "seed:99"))
    (one,) = found(theirs, "mistake 32")
    assert one.verdict == "needs argument"
    assert "a log of seed 99" in one.what


def test_two_logs_of_one_seed(theirs):
    again = theirs / "train_again_seed42.log"
    again.write_bytes((theirs / LOG).read_bytes())
    assert audit_folder(theirs) == []
    figures = {"code": len(SCRIPT), "total": 15308671 + len(SCRIPT), "loss": 1.1178 * RATIO, "high": 1.14 * RATIO}
    again.write_text(THEIR_LOG.format(seed=42, bpb=1.1178, **figures))
    assert [f.what[:22] for f in found(theirs, "mistake 32")] == ["2 runs of seed 42, of "]
    assert overall(audit_folder(theirs)) == "needs argument (mistake 32)"


def test_over_the_cap_by_the_file_on_disk(theirs):
    (theirs / "final_model.ptz").write_bytes(bytes(15_999_980))
    assert "11 over 16,000,000, 15,999,980 of model and 31 of code" in found(theirs, "mistake 20")[0].what


def test_a_checkpoint_left_in_the_folder_is_no_artifact(theirs):
    with open(theirs / "final_model.pt", "wb") as file:
        file.truncate(130_000_000)
    assert audit_folder(theirs) == []


def test_over_the_cap_by_the_log(theirs):
    for name in ("model", "submission size"):
        substitute(theirs / LOG, f"{name} int6+zstd: 15", f"{name} int6+zstd: 16")
    assert any("over 16,000,000" in f.what and f.where.startswith(LOG) for f in found(theirs, "mistake 20"))


@pytest.mark.parametrize(
    ("missing", "rule"), [(README, "folder"), (JSON, "folder"), (CODE, "folder"), ("train*.log", "mistake 27")]
)
def test_missing_files(theirs, missing, rule):
    for path in theirs.glob(missing):
        path.unlink()
    assert [(f.where, f.verdict) for f in found(theirs, rule)] == [(missing, "fail")]


def test_an_empty_folder(tmp_path):
    assert {f.where for f in audit_folder(tmp_path)} == {README, JSON, CODE, "train*.log"}


def test_a_ratio_that_no_stream_has(theirs):
    for seed in BPB:
        substitute(theirs / f"train_seed{seed}.log", "fineweb10B_sp1024", "other")
        substitute(theirs / f"train_seed{seed}.log", "tokens:62021632", "tokens:50000000")
    text = (theirs / JSON).read_text()
    assert found(theirs, "mistakes 1-6") == []
    (theirs / JSON).write_text(text)
    for seed, bpb in BPB.items():
        path = theirs / f"train_seed{seed}.log"
        path.write_text(path.read_text().replace(f"val_loss:{bpb * RATIO:.8f}", f"val_loss:{bpb * 1.4:.8f}"))
    (one, *_) = found(theirs, "mistakes 1-6")
    assert one.verdict == "needs argument"
    assert "val_loss / val_bpb is 1.4000" in one.what


def test_the_label_is_the_one_that_submission_json_repeats(theirs):
    for seed, bpb in BPB.items():
        later = f"final_sliding_exact val_loss:{(bpb - 0.01) * RATIO:.8f} val_bpb:{bpb - 0.01:.8f}\n"
        with open(theirs / f"train_seed{seed}.log", "a") as log:
            log.write(later)
    assert audit_folder(theirs) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_odd_encodings_are_read(theirs, encoding):
    text = (theirs / LOG).read_text() + "note: é\n"
    (theirs / LOG).write_bytes(text.encode(encoding))
    findings = audit_folder(theirs)
    assert [f.verdict for f in findings] == (["note"] if encoding == "latin-1" else [])
    (log,) = read_log(theirs / LOG)
    assert log.seed == (4, 42)


def test_a_long_log_is_read_at_both_ends(theirs, monkeypatch):
    monkeypatch.setattr("pgolf.audit.bounded.PART", 1 << 20)
    with open(theirs / LOG, "r+") as log:
        text = log.read()
        log.seek(0)
        log.write("x" * 2_000_000 + "\n" + "".join(f"step:{i}/2 train_loss:1\n" for i in range(40_000)) + text)
    (note,) = audit_folder(theirs)
    assert note.verdict == "note"
    assert "bytes in its middle were not read" in note.what


PROGRAM = "import requests\nprint('inside')\n" + "# words\n" * 200
PACKED = {
    "zlib": zlib.compress(PROGRAM.encode()),
    "deflate": zlib.compress(PROGRAM.encode())[2:-4],
    "lzma": lzma.compress(PROGRAM.encode()),
    "lzma alone": lzma.compress(PROGRAM.encode(), lzma.FORMAT_ALONE),
    "lzma raw": lzma.compress(PROGRAM.encode(), lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}]),
    "bz2": bz2.compress(PROGRAM.encode()),
    "brotli": brotli.compress(PROGRAM.encode()),
    "zstd": zstandard.compress(PROGRAM.encode()),
}


def wrapped(text: str, how: str) -> str:
    """A wrapper around noise enough to be long; nothing here is ever run."""
    packed = PACKED[how] if text == PROGRAM else lzma.compress(text.encode())
    return f"import base64 as b, lzma\nexec(lzma.decompress(b.b85decode({base64.b85encode(packed).decode()!r})))\n"


@pytest.mark.parametrize("how", PACKED)
@pytest.mark.parametrize("encode", [base64.b85encode, base64.a85encode, base64.b64encode, bytes.hex, repr])
def test_wrappers_are_unwrapped_and_not_run(monkeypatch, how, encode):
    monkeypatch.setattr("pgolf.audit.wrapper.LONG", 40)
    text = encode(PACKED[how])
    constant = text if encode is repr else repr(text)
    code = read_code(f"import x\nexec(x.y({constant}))\n".encode())
    assert code.findings == ()
    assert code.sources[-1].text == PROGRAM


def test_layers_of_wrappers_are_counted(theirs, monkeypatch):
    monkeypatch.setattr("pgolf.audit.wrapper.LONG", 40)
    (theirs / CODE).write_text(wrapped(wrapped(PROGRAM, "lzma"), "lzma"))
    (one,) = found(theirs, "mistake 24")
    assert one.where == "train_gpt.py (unpacked 2x):1"
    assert found(theirs, "mistake 22") == []


def test_a_bomb_is_bounded(monkeypatch):
    monkeypatch.setattr("pgolf.audit.wrapper.LONG", 40)
    monkeypatch.setattr("pgolf.audit.wrapper.LIMIT", 10_000)
    bomb = zlib.compress(b"#" * 50_000_000)
    code = read_code(f"import x\nexec(x.y({bomb!r}))\n".encode())
    assert all(len(source.text) <= 400_000 for source in code.sources)


def test_what_cannot_be_shown_needs_an_argument():
    code = read_code(b"import marshal\nexec(marshal.loads(b'" + b"x" * 500 + b"'))\n")
    assert [f.rule for f in code.findings] == ["mistake 22"]


@pytest.mark.parametrize(
    "data", [b"", b"\x00\xff\xfe", b"x = (" * 5000, "# coding: latin-1\nx = 'é'\n".encode("latin-1")]
)
def test_any_bytes_are_a_script_to_read(data):
    read_code(data)


def test_our_own_export_is_unwrapped(ours):
    from pgolf.export import code

    data = code.build({"x": 1}, entry="pgolf.errors:need")
    inside = read_code(data)
    assert [s.where for s in inside.sources] == ["train_gpt.py", "train_gpt.py (unpacked 1x)"]
    assert inside.sources[1].text.startswith("RECIPE={'x':1}\n")
    assert "class UserError" in inside.sources[1].text
    assert inside.findings == ()
    assert list(scan(inside, set())) == []


def test_nothing_is_executed(theirs, tmp_path):
    on_nll = tmp_path / "ran"
    (theirs / CODE).write_text(f"open({str(on_nll)!r}, 'w')\nexec('1/0')\n")
    audit_folder(theirs)
    assert not on_nll.exists()


def test_as_a_command(ours, theirs, capsys):
    from pgolf.audit.__main__ import main

    assert main([str(ours)]) == 0
    assert capsys.readouterr().out == "verdict consistent\n"
    (theirs / README).unlink()
    assert main([str(theirs)]) == 1
    assert capsys.readouterr().out.startswith("verdict fail (folder)\n")
