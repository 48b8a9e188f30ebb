"""What rich draws on a terminal: the live view of a stage, in two lines or so, and the closing card."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pgolf.journal import Bar
from pgolf.peaks import peak_flops

if TYPE_CHECKING:
    from pgolf.recipe import Recipe

REDRAWN = 4  # times a second: a thread of the rank that trains
BAR = 24


class View(Bar):
    """One stage as it stands. rich calls `__rich__` whenever it redraws; an update only notes what there is to draw."""

    def __init__(self, label: str, recipe: "Recipe | None"):
        self.label, self.peak = label, 0.0
        self.done, self.text, self.rate = 0.0, "", 0.0
        self.spinner = Spinner("dots")
        if recipe is not None:
            self.peak = peak_flops(recipe)
            self.flops = recipe.model.flops_per_token(recipe.data.sequence_length, True)

    def update(self, done: float, text: str, tokens_per_second: float = 0.0) -> None:
        self.done, self.text, self.rate = done, text, tokens_per_second

    def __rich__(self) -> Group:
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=1.0, completed=self.done, width=BAR)
        head.add_row(self.spinner, Text(self.label, "bold"), bar, f"{self.done:4.0%}")
        return Group(head, Text("  " + self.text + self.utilisation(), "dim"))

    def utilisation(self) -> str:
        """Model operations over what the GPUs could do in bf16, where that is known."""
        return f"  MFU {self.rate * self.flops / self.peak:.1%}" if self.peak and self.rate else ""


@contextmanager
def live(console: Console, label: str, recipe: "Recipe | None") -> Iterator[View]:
    """A view at the foot of the terminal while the context lasts; lines printed meanwhile go above it."""
    view = View(label, recipe)
    with Live(view, console=console, refresh_per_second=REDRAWN, transient=True):
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
