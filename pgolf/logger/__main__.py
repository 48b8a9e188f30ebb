"""The mirror's process: `python -m pgolf.logger LOGGER FOLDER`, started by the parent of a run or sweep."""

import json
import os
import sys
import threading
from pathlib import Path

from pgolf.errors import UserError
from pgolf.files.frozen import thaw
from pgolf.logger import Mirrored
from pgolf.logger.mirror import follow
from pgolf.machine.helper import end_within


def main(logger: str, folder: str) -> None:
    """The mirror's process."""
    spec, over = thaw(json.loads(logger), Mirrored), threading.Event()

    def wait_for_the_parent() -> None:
        while os.read(0, 4096):  # not sys.stdin: an interpreter that ends while a thread reads from that aborts
            pass
        over.set()
        end_within(2 * spec.patience_seconds)

    threading.Thread(target=wait_for_the_parent, daemon=True).start()
    try:
        follow(spec.target(Path(folder)), Path(folder), over.wait)
    except UserError as wrong:
        sys.exit(str(wrong))


if __name__ == "__main__":
    main(*sys.argv[1:])
