"""What a person sees while a stage runs: plain lines, the live view of a terminal, nothing; and streams that do not work."""

import io
import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
from rich.console import Console as RichConsole

from pgolf.config.compose import rehearse
from pgolf.machine import outlet as machine_outlet
from pgolf.machine.outlet import Outlet, outlet
from pgolf.show import console
from pgolf.show.console import PlainConsole, QuietConsole, TerminalConsole
from pgolf.show.live import View
from pgolf.show.peaks import PEAKS, peak_flops, peak_of
from tests.processes import PATIENCE

TEXT = "step 43  loss 4.682  lr x1.000  7,305 tokens/s  12 s used, 48 s left"
ROWS = [("receipt", "average: moved = 1"), ("receipt", "ttt: x = 0  DEAD"), ("verdict", "consistent")]


def terminal(width: int) -> tuple[TerminalConsole, io.StringIO]:
    out = io.StringIO()
    shown = TerminalConsole(out)
    shown.console = RichConsole(file=out, width=width, force_terminal=True, highlight=False, color_system=None)
    return shown, out


def drawn(view: View, width: int) -> list[str]:
    rich = RichConsole(width=width, file=io.StringIO(), color_system=None)
    with rich.capture() as shown:
        rich.print(view)
    return [line.rstrip() for line in shown.get().splitlines()]


# ---- the terminal


@pytest.mark.parametrize("width", [80, 120])
def test_a_live_view_is_a_bar_and_a_line(width):
    view = View()
    view.update("train", 0.35, TEXT)
    bar, text = drawn(view, width)
    assert "train" in bar
    assert bar.endswith("35%")
    assert text.strip() == TEXT


def test_a_view_with_nothing_to_tell_is_empty():
    assert "".join(drawn(View(), 80)) == ""


def test_a_live_view_leaves_nothing_behind_but_the_lines_printed_meanwhile():
    shown, out = terminal(80)
    with shown.live():
        shown.progress("train", 0.5, TEXT)
        shown.line("step 50  loss 4.0 [bold]")
    said = out.getvalue()
    assert said.count("step 50  loss 4.0 [bold]") == 1
    assert said.index("step 50") < said.rindex("\x1b[2K"), "the last thing drawn is the erasing of the view"


def test_a_terminal_draws_progress_only_while_it_is_live():
    shown, out = terminal(80)
    shown.progress("train", 0.5, TEXT)
    with shown.live():
        pass
    shown.progress("train", 0.5, TEXT)
    assert "loss 4.682" not in out.getvalue()


def test_a_card_is_a_table_of_every_row():
    shown, out = terminal(80)
    shown.card("laptop, seed 1", ROWS)
    lines = out.getvalue().splitlines()
    assert lines[0].strip() == "laptop, seed 1"
    assert sum("receipt" in line for line in lines) == 1
    assert any("ttt: x = 0  DEAD" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_what_the_card_tells_is_no_line_of_a_terminal():
    shown, out = terminal(80)
    shown.detail("val_bpb=1.6")
    assert out.getvalue() == ""


# ---- files and pipes


def test_plain_progress_is_a_line_now_and_then_and_as_each_kind_of_work_begins(monkeypatch):
    now, out = 0.0, io.StringIO()
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    plain = PlainConsole(out)
    with plain.live():
        for now in (1.0, 9.0, 10.9, 11.0, 12.0, 22.0):
            plain.progress("train", now / 100, TEXT)
        plain.progress("seal", 0.0, "pack")
    assert out.getvalue().splitlines() == [
        f"train    1%  {TEXT}",
        f"train   11%  {TEXT}",
        f"train   22%  {TEXT}",
        "seal    0%  pack",
    ]


def test_plain_lines_are_all_there_is_of_a_card():
    out = io.StringIO()
    plain = PlainConsole(out)
    plain.line("one")
    plain.detail("two")
    plain.card("laptop", ROWS)
    assert out.getvalue() == "one\ntwo\n"


def test_a_quiet_console_shows_the_result_alone():
    out = io.StringIO()
    quiet = QuietConsole(out)
    with quiet.live():
        quiet.progress("train", 0.5, TEXT)
    quiet.line("x")
    quiet.detail("x")
    quiet.card("x", ROWS)
    quiet.result("val_bpb=1.0")
    assert out.getvalue() == "val_bpb=1.0\n"


def test_a_console_is_drawn_on_a_terminal_that_a_person_watches(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda descriptor: True)
    monkeypatch.delenv("CI", raising=False)
    assert isinstance(console.open_console(False), TerminalConsole)
    assert isinstance(console.open_console(True), QuietConsole)
    monkeypatch.setenv("CI", "true")
    assert isinstance(console.open_console(False), PlainConsole)
    monkeypatch.delenv("CI")
    monkeypatch.setattr(os, "isatty", lambda descriptor: False)
    assert isinstance(console.open_console(False), PlainConsole)


def test_there_is_one_outlet_of_a_stream():
    assert outlet(2) is outlet(2)
    assert outlet(2) is not outlet(1)


# ---- streams that do not work


@contextmanager
def pipe():
    """Both ends. The writing one leads nowhere afterwards, so that an outlet's thread cannot write into another test's file."""
    read, write = os.pipe()
    try:
        yield read, write
    finally:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, write)
        os.close(nowhere)
        with suppress(OSError):
            os.close(read)


def test_an_outlet_writes_in_order_what_it_is_given():
    with pipe() as (read, write):
        out = Outlet(write, "utf-8")
        text = "".join(f"line {i} zwölf\n" for i in range(100))
        for line in text.splitlines(True):
            assert out.write(line) == len(line)
        out.flush()
        assert out.drain(30.0) is None
        assert os.read(read, 1 << 16).decode() == text
        assert (out.fileno(), out.isatty()) == (write, False)


def test_a_pipe_that_nobody_has_open_is_a_fault_and_no_exception():
    with pipe() as (read, write):
        os.close(read)
        out = Outlet(write, "utf-8")
        for _ in range(100):
            assert out.write("lost\n") == 5
        assert out.drain(30.0) == "Broken pipe"
        out.write("after the fault\n")
        assert out.drain(0.0) == "Broken pipe"


def test_a_full_pipe_that_nobody_reads_holds_nothing_up():
    with pipe() as (read, write):
        out, began = Outlet(write, "utf-8"), time.monotonic()
        for _ in range(500):
            out.write("x" * 10_000)
        assert time.monotonic() - began < 10
        assert out.drain(0.5) == "took nothing for 0.5 s at the end"
        assert time.monotonic() - began < 20
        os.close(read)  # ends the thread


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(machine_outlet, "PENDING", 100_000)
    with pipe() as (read, write):
        out, got = Outlet(write, "utf-8"), b""
        for _ in range(500):
            out.write("x" * 10_000)
        while len(got) < 100_000 or select.select([read], [], [], 1.0)[0]:
            got += os.read(read, 1 << 20)
        assert len(got) < 1_000_000, "the rest was dropped"


def test_a_slow_reader_gets_everything():
    with pipe() as (read, write):
        out, got = Outlet(write, "utf-8"), b""
        text = "abc\n" * 50_000
        for line in text.splitlines(True):
            out.write(line)
        while len(got) < len(text):
            got += os.read(read, 1 << 16)
        assert got.decode() == text
        assert out.drain(30.0) is None


def test_a_stream_of_another_encoding_shows_what_it_can():
    with pipe() as (read, write):
        out = Outlet(write, "latin-1")
        PlainConsole(out).line("zwölf — 12")
        assert out.drain(30.0) is None
        assert os.read(read, 100) == b"zw\xf6lf ? 12\n"


def test_rich_draws_on_an_outlet():
    with pipe() as (read, write):
        out = Outlet(write, "latin-1")
        TerminalConsole(out).card("laptop", ROWS)
        assert out.drain(30.0) is None
        assert b"laptop" in os.read(read, 1 << 16)


SAYS = "from pgolf.machine.outlet import say\nsay('first')\nsay('second', 1)\nprint('third')"


def test_a_line_is_said_on_either_stream():
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("second\nthird\n", "first\n")


def test_a_program_whose_stream_is_closed_says_what_it_can():
    """As `2>&-`: the words are lost, the program goes on."""
    command = f'exec "{sys.executable}" -c "{SAYS}" 2>&-'
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "second\nthird\n")


# ---- what a GPU could do


@pytest.mark.parametrize(
    ("name", "tera"), [("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA L40S", 362), ("GeForce", 0)]
)
def test_peaks_by_name(name, tera):
    assert peak_of(name) == tera * 1e12


def test_every_peak_is_found_by_its_own_name():
    assert all(peak_of(name) == peak for name, peak in PEAKS.items())


def test_the_peak_of_a_recipe_is_that_of_all_its_ranks():
    def peak(gpus: list[str], *words: str) -> float:
        return peak_flops(rehearse(list(words), sweep=False)[0].recipe, gpus)

    assert peak(["NVIDIA H100 PCIe, 550"], "machine.device=CPU") == 0.0
    assert peak(["NVIDIA H100 PCIe, 550"] * 2, "machine.device=CUDA", "machine.ranks=2") == 2 * 756e12
    assert peak(["GeForce"], "machine.device=CUDA", "machine.ranks=1") == 0.0
    assert peak([], "machine.device=CUDA", "machine.ranks=1") == 0.0
