"""Writes report.html beside what it shows."""

from pathlib import Path

from pgolf.files import write_bytes
from pgolf.report import REPORT
from pgolf.report.run import run_page
from pgolf.report.sweep import is_sweep, sweep_page


def write(folder: Path) -> Path:
    """Write the report of a run's or a sweep's folder, and return its path."""
    page = sweep_page(folder) if is_sweep(folder) else run_page(folder)
    write_bytes(folder / REPORT, page.encode())
    return folder / REPORT
