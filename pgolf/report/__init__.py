"""`report.html`: what a run or a sweep did, on one page that needs no network. A view of its files, and of nothing else."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

REPORT = "report.html"


@contextmanager
def reported(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Write the report of `folder` when the context ends, however it ends; `say` gets a line if that does not work."""
    try:
        yield
    finally:
        try:
            write(folder)
        except Exception as fault:  # a drawing that fails must not cost a run its result
            say(f"no {REPORT}: {type(fault).__name__}: {fault}")


def write(folder: Path) -> Path:
    """Write the report of a run's or a sweep's folder, and return its path."""
    from pgolf.files import write_bytes
    from pgolf.report.run import run_page
    from pgolf.report.sweep import is_sweep, sweep_page

    page = sweep_page(folder) if is_sweep(folder) else run_page(folder)
    write_bytes(folder / REPORT, page.encode())
    return folder / REPORT
