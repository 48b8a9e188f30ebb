"""What a person sees while a stage runs: plain lines, the live view of a terminal, and nothing from other ranks."""

import io

import pytest
from pgolf.journal import Nowhere, Plain, Terminal
from rich.console import Console

from pgolf import journal
from pgolf.compose import rehearse
from pgolf.live import View
from pgolf.peaks import PEAKS, peak_flops, peak_of

TEXT = "step 43  loss 4.682  lr x1.000  7,305 tokens/s  12 s used, 48 s left"


def terminal(width: int) -> tuple[Terminal, io.StringIO]:
    out = io.StringIO()
    screen = Terminal()
    screen.console = Console(file=out, width=width, force_terminal=True, highlight=False, color_system=None)
    return screen, out


def drawn(view: View, width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as shown:
        console.print(view)
    return [line.rstrip() for line in shown.get().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_a_live_view_is_a_bar_and_a_line(width):
    view = View("train", None)
    view.update(0.35, TEXT)
    bar, text = drawn(view, width)
    assert "train" in bar
    assert bar.endswith("35%")
    assert text.strip() == TEXT


def test_a_live_view_leaves_nothing_behind_but_the_lines_printed_meanwhile():
    screen, out = terminal(80)
    with screen.bar("train") as bar:
        bar.update(0.5, TEXT)
        screen.line("step 50  loss 4.0")
    said = out.getvalue()
    assert said.count("step 50  loss 4.0") == 1
    assert said.index("step 50") < said.rindex("\x1b[2K"), "the last thing drawn is the erasing of the view"


def test_plain_progress_is_a_line_now_and_then(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(journal.time, "monotonic", lambda: now)
    with Plain().bar("train") as bar:
        for now in (1.0, 9.0, 11.0, 12.0, 22.0):
            bar.update(now / 100, TEXT)
    assert capsys.readouterr().out.splitlines() == [f"train   11%  {TEXT}", f"train   22%  {TEXT}"]


def test_other_ranks_show_nothing(capsys):
    with Nowhere().bar("train") as bar:
        bar.update(0.5, TEXT)
    Nowhere().line("x")
    Nowhere().card("x", [("a", "b")])
    assert capsys.readouterr() == ("", "")


def test_a_card_is_a_table_of_every_row():
    screen, out = terminal(80)
    screen.card(
        "laptop, seed 1", [("receipt", "average: moved = 1"), ("receipt", "ttt: x = 0  DEAD"), ("verdict", "ok")]
    )
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == "laptop, seed 1"
    assert sum("receipt" in line for line in lines) == 1
    assert any("ttt: x = 0  DEAD" in line for line in lines)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("name", "tera"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("GeForce", 0)]
)
def test_peaks_by_name(name, tera):
    assert peak_of(name) == tera * 1e12


def test_every_peak_is_found_by_its_own_name():
    assert all(peak_of(name) == peak for name, peak in PEAKS.items())


def test_utilisation_is_shown_where_the_peak_is_known():
    (job,) = rehearse(["machine.device=CPU"], sweep=False)
    view = View("train", job.recipe)
    assert peak_flops(job.recipe) == 0.0
    view.update(0.5, TEXT, 1e6)
    assert "MFU" not in "".join(drawn(view, 120))
    view.peak = 4 * view.flops * 1e6
    assert "MFU 25.0%" in "".join(drawn(view, 120))
