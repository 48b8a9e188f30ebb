"""Reports: one self-contained page whatever there is of a run, true to its files, and drawn by a real browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pgolf.report import Drawing, charts, page
from pgolf.report.__main__ import main
from pgolf.report.run import MOST_LAYERS
from pgolf.report.write import write
from pgolf.submission import publish
from tests import programs
from tests.processes import PATIENCE
from tests.sweeps import died, edit, make_plan, make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
LAYERS = [
    {
        "name": f"blocks.{i}.up",
        "section": "mlp",
        "bits": 5,
        "error": 0.01 / (i + 1),
        "rounding_error": 0.02,
        "entropy": 4.5,
        "notice": "",
    }
    for i in range(MOST_LAYERS + 8)
]


@pytest.fixture
def run(tmp_path) -> Path:
    """A complete run with curves, layers and a trace."""
    folder = make_run(tmp_path, "0_seed1337", 1337, 1.6)
    record = json.loads((folder / "record.json").read_text())
    rows = [{"chunk": i, "phase": p, "bpb": 1.7 - 0.01 * i, "moved": 0.1} for i in range(5) for p in ("score", "adapt")]
    edit(folder, "evaluate", trace=rows)
    edit(folder, "artifact", layers=LAYERS, groups={"mlp": 900_000, "embedding": 100_000, "overhead": 0})
    events = [
        {"event": "step", "step": n, "seconds": n / 10, "loss": 7 - n / 50, "lr": 1.0, "momentum": 0.9}
        for n in range(1, 100, 7)
    ]
    events += [
        {"event": "dev", "step": 50, "seconds": 5.0, "dev_bpb": 2.5},
        {"event": "dev", "step": 90, "seconds": 9.0, "dev_bpb": 2.2},
    ]
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    (folder / "config.yaml").write_text("name: laptop\nquant:\n  bits: 5\n")
    assert record["status"] == "complete"
    return folder


def made(folder: Path) -> str:
    return write(folder).read_text(encoding="utf-8")


def words(text: str) -> str:
    """What a reader sees, roughly."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


def test_a_complete_run_has_all_its_parts(run):
    text = made(run)
    seen = words(text)
    for word in (
        "complete: verdict consistent",
        "1.60000000",
        "1,000,015 bytes of 16,000,000",
        "distance to the raw weights",
    ):
        assert word in seen, word
    for title in ("Training", "Evaluation", "Quantisation", "Bytes", "Receipts", "Clocks", "What ran", "Configuration"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("<svg") == 7, "over seconds, over steps, schedule, bpb and movement by chunk, layers, bytes"
    assert f"the {MOST_LAYERS} worst of {len(LAYERS)} tensors" in seen
    assert "bits: 5" in seen
    assert f"blocks.{MOST_LAYERS + 7}.up" in seen, "the table has every layer"


def test_a_page_needs_nothing_but_itself(run):
    text = made(run)
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', text) == []
    assert "@import" not in text
    assert "url(http" not in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert len(text) < 1_000_000


def test_the_same_files_give_the_same_bytes(run):
    assert made(run) == made(run)


def test_drawings_take_the_pages_colours(run):
    text = made(run)
    assert not [stand_in for stand_in in charts.VARIABLES if stand_in in text]
    assert "var(--a)" in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_a_run_that_did_not_finish_says_so(tmp_path, status):
    folder = died(tmp_path, "0_seed1", 1, status, None if status == "running" else "RankError: rank 1 <died>")
    seen = words(made(folder))
    assert status in seen
    assert ("RankError: rank 1 <died>" in seen) == (status != "running")
    assert ("killed, or is still running" in seen) == (status == "running")
    for word in ("events.jsonl is not there", "config.yaml is not there", "No artifact", "No clocks"):
        assert word in seen


def test_an_empty_folder_has_a_report_too(tmp_path):
    seen = words(made(tmp_path))
    assert "record.json is not there" in seen


def test_broken_files_are_named(run):
    (run / "record.json").write_text("{")
    with open(run / "events.jsonl", "a") as events:
        events.write('{"event": "step", "st')
    seen = words(made(run))
    assert "record.json: not JSON" in seen
    assert "1 line(s) cannot be read" in seen
    assert "Loss on training text" in seen, "what can be drawn is drawn"


def test_numbers_that_are_none_are_left_out(run):
    (run / "events.jsonl").write_text('{"event": "step", "step": 1, "seconds": 1, "loss": NaN, "lr": 1.0}\n[1]\n')
    edit(run, "artifact", layers=[{"name": "x", "error": 0.0, "rounding_error": 0.0}])
    seen = words(made(run))
    assert "nan" not in seen
    assert "No quantisation" in seen


def test_what_comes_from_files_is_escaped(run):
    edit(run, None, arm="<script>alert(1)</script>", error="<img src=x>")
    (run / "config.yaml").write_text("name: </pre><script>alert(2)</script>\n")
    text = made(run)
    assert "<script" not in text
    assert "<img" not in text


def test_a_size_over_the_cap_is_said(run):
    edit(run, "limits", artifact_bytes=1000)
    assert "999,015 over" in words(made(run))


def test_a_report_that_fails_costs_a_line(tmp_path):
    fault = Drawing(tmp_path / "nowhere").finish()
    assert fault.startswith("no report.html: could not be started"), "its folder is not there"
    (tmp_path / "file" / "report.html").mkdir(parents=True)
    fault = Drawing(tmp_path / "file").finish()
    assert fault.startswith("no report.html: ended with exit code 1")
    assert fault.endswith(f"(see {tmp_path / 'file' / 'report.log'})")


def test_a_report_is_drawn_by_a_process_that_is_asked_to_finish(run, monkeypatch):
    monkeypatch.setattr("pgolf.report.DRAWING_SECONDS", 120.0)
    drawing = Drawing(run)
    assert not (run / "report.html").exists()
    edit(run, None, name="renamed meanwhile")
    assert drawing.finish() == ""
    assert "renamed meanwhile" in (run / "report.html").read_text(encoding="utf-8")
    assert not (run / "report.log").exists()


def test_a_drawing_that_is_not_done_is_stopped(run, monkeypatch):
    monkeypatch.setattr("pgolf.report.DRAWING_SECONDS", 0.0)
    assert "was not done 0 s after the end and was stopped" in Drawing(run).finish()


# ---- sweeps


@pytest.fixture
def sweep(tmp_path) -> Path:
    arms = {"default": (1.60, 1.61, 1.605), "quant=int5_gptq": (1.58, 1.585, 1.59), "average=swa": (1.7, 1.71)}
    make_plan(tmp_path, **{arm: [1, 2, 3] for arm in arms})
    for arm, scores in arms.items():
        for seed, bpb in enumerate(scores, 1):
            make_run(tmp_path, f"{len(list(tmp_path.glob('*_seed*')))}_seed{seed}", seed, bpb, arm=arm)
    died(tmp_path, "8_seed3", 3, "failed", "UserError: no room", arm="average=swa")
    publish(tmp_path)
    return tmp_path


def test_a_sweep_shows_arms_seeds_and_ablation(sweep):
    write(sweep / "0_seed1")
    text = made(sweep)
    seen = words(text)
    summary = json.loads((sweep / "summary.json").read_text())
    for arm in summary["arms"]:
        assert f"{arm['val_bpb']['mean']:.8f}" in seen
        assert all(f"{row['val_bpb']:.8f}" in seen for row in arm["seeds"])
    assert "failed: UserError: no room" in seen
    assert "3 arm(s), 8 complete run(s), 1 not complete" in seen
    for row in summary["ablation"]["rows"]:
        assert page.number(row["low"]) in seen
    assert text.count("<svg") == 2
    assert 'href="0_seed1/report.html"' in text
    assert 'href="submission/default/README.md"' in text
    assert set(re.findall(r'href="([^"#]*)"', text)) <= {p.relative_to(sweep).as_posix() for p in sweep.rglob("*")}


def test_one_arm_has_nothing_to_compare(tmp_path):
    make_run(tmp_path, "0_seed1", 1)
    publish(tmp_path)
    assert "there is nothing to compare" in words(made(tmp_path))


def test_the_command_writes_both(sweep, capsys):
    assert main([str(sweep), str(sweep / "0_seed1")]) == 0
    assert capsys.readouterr().out.split() == [str(sweep / "report.html"), str(sweep / "0_seed1/report.html")]
    assert main([str(sweep), "--json"]) == 0
    assert programs.said(capsys.readouterr().out, "pgolf.report", 0)["pages"] == [str(sweep / "report.html")]
    (sweep / "empty").mkdir()
    assert main([str(sweep / "empty")]) == 2
    assert "holds neither a run" in capsys.readouterr().err
    assert main([str(sweep / "empty"), "--json"]) == 2
    assert "holds neither a run" in programs.refused(capsys.readouterr().out, 2)


# ---- pieces


def test_numbers_as_people_read_them():
    assert [page.cell(v) for v in (1234567, 0.5, None, True, "<b>", page.Exact("1.60000000"))] == [
        "1,234,567", "0.5", "–", "yes", "&lt;b&gt;", "1.60000000",
    ]  # fmt: skip


def test_long_names_keep_their_ends():
    assert charts.shortened("blocks.10.attention.out.weight.of.many") == "….attention.out.weight.of.many"
    assert len(charts.shortened("x" * 99)) == 30


# ---- in a browser

MEASURE = """<script>onload = () => { const d = document.getElementById('f').contentDocument, out = {
  wide: d.documentElement.scrollWidth, drawings: [...d.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height),
  text: [...d.querySelectorAll('svg text')].length, paper: getComputedStyle(d.body).backgroundColor,
  ink: getComputedStyle(d.querySelector('svg text')).fill };
  document.body.innerHTML = '<pre>' + JSON.stringify(out) + '</pre>'; }</script>"""


def browsed(folder: Path, text: str, width: int, *flags: str) -> dict:
    """What a headless browser makes of a page in a frame of `width` pixels."""
    frame = f'<iframe id="f" width="{width}" height="800" style="border:0" srcdoc="{html.escape(text)}"></iframe>'
    (folder / "frame.html").write_text(
        f"<!doctype html><meta charset=utf-8><body>{frame}{MEASURE}</body>", encoding="utf-8"
    )
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += [
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1400,900",
    ]
    command += [f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom", f"file://{folder / 'frame.html'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout)[1]))


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
@pytest.mark.parametrize(("width", "flag", "light"), [(390, 1, True), (1280, 0, False)])
def test_a_browser_draws_it(run, width, flag, light):
    found = browsed(run, made(run), width, f"--blink-settings=preferredColorScheme={flag}")
    assert found["wide"] <= width, "nothing sticks out sideways"
    assert len(found["drawings"]) == 7
    assert all(50 < height < 1500 for height in found["drawings"])
    assert found["text"] > 60
    paper, ink = (sum(map(int, re.findall(r"\d+", found[name])[:3])) for name in ("paper", "ink"))
    assert (paper > 600 > ink) == light
    assert (paper < 200 < ink) == (not light)


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")
def test_a_browser_draws_a_sweep(sweep):
    found = browsed(sweep, made(sweep), 390)
    assert found["wide"] <= 390
    assert len(found["drawings"]) == 2
