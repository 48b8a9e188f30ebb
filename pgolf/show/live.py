"""What rich draws on a terminal: the live view of a stage, in two lines or so, and the closing card."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

REDRAWN = 4  # times a second
BAR = 24


class View:
    """The work at hand as it stands. rich calls `__rich__` whenever it redraws; an update only notes what there is to draw."""

    def __init__(self) -> None:
        self.label, self.done, self.text = "", 0.0, ""
        self.spinner = Spinner("dots")

    def update(self, label: str, done: float, text: str) -> None:
        """What the next drawing shows."""
        self.label, self.done, self.text = label, done, text

    def __rich__(self) -> Group:
        if not self.label:
            return Group()
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=self.done, width=BAR)
        head.add_row(self.spinner, Text(self.label, "bold"), bar, f"{self.done:4.0%}")
        return Group(head, Text("  " + self.text, "dim"))


@contextmanager
def live(console: Console) -> Iterator[View]:
    """A view at the foot of the terminal while the context lasts; lines printed meanwhile go above it."""
    view, quiet = View(), {"redirect_stdout": False, "redirect_stderr": False}
    with Live(view, console=console, refresh_per_second=REDRAWN, transient=True, **quiet):
        yield view


def table(title: str, rows: list[tuple[str, str]]) -> Table:
    """Rows of (label, text); a label is shown once for the rows that share it."""
    drawn = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    before = ""
    for label, text in rows:
        drawn.add_row("" if label == before else label, Text(text, _colour(label, text)))
        before = label
    return drawn


def _colour(label: str, text: str) -> str:
    if label == "verdict":
        return "bold green" if text == "consistent" else "bold red" if text.startswith("fail") else "bold yellow"
    return "red" if text.endswith("  DEAD") else ""
