"""`report.html`: what a run or a sweep did, on one page that needs no network. A view of its files, and of nothing else."""

from pathlib import Path

from pgolf.machine.helper import Helper

REPORT = "report.html"
DRAWING_SECONDS = 5.0  # that the end of a run waits for the drawing


class Drawing:
    """A process that gets ready to draw the report of `folder`, and draws it when asked to finish."""

    def __init__(self, folder: Path):
        self.helper = Helper("pgolf.report.drawing", str(folder), output=folder / "report.log")

    def finish(self) -> str:
        """Draw; what went wrong, or nothing. A drawing that fails costs a run nothing."""
        fault = self.helper.finish(DRAWING_SECONDS)
        return f"no {REPORT}: {fault}" if fault else ""
