"""The process that draws a report when its standard input is closed: `python -m pgolf.report.drawing FOLDER`.

Its imports take longer than the drawing, so it is started before there is anything to draw.
"""

import sys
from pathlib import Path

import matplotlib.backends.backend_svg  # noqa: F401

from pgolf.machine.helper import end_within
from pgolf.report import DRAWING_SECONDS
from pgolf.report.write import write

if __name__ == "__main__":
    sys.stdin.buffer.read()
    end_within(2 * DRAWING_SECONDS)
    write(Path(sys.argv[1]))
