"""The process that draws a report when its standard input is closed: `python -m pgolf.report.drawing FOLDER`.

Its imports take longer than the drawing, so it is started before there is anything to draw.
"""

import sys
from pathlib import Path

from pgolf.report import write
from pgolf.report.run import run_page as _run_page  # noqa: F401  imported early: that is what this process is for

if __name__ == "__main__":
    sys.stdin.buffer.read()
    write(Path(sys.argv[1]))
