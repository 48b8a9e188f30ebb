"""Events and records as TensorBoard scalars and text. Lives in the mirror's process."""

import math
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from pgolf.files import lookup
from pgolf.logger.keys import AXES, SUMMARY, axis, history
from pgolf.logger.mirror import Target, read_or_none


class ToTensorBoard(Target):
    """Every history over its axis (TensorBoard wants whole numbers, so seconds are rounded), and the record's end as text."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def event(self, event: dict[str, Any]) -> None:
        numbers = history(event)
        for name in numbers.keys() - {*AXES.values(), "chunk"}:
            at = numbers.get(axis(name), numbers["seconds"])
            self.writer.add_scalar(name, numbers[name], round(at), event["time"])

    def close(self) -> None:
        record = read_or_none(self.folder / "record.json")
        final = {name: value for name, dotted in SUMMARY.items() if (value := lookup(record, dotted)) is not None}
        for name, value in final.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self.writer.add_scalar(name, value)
            else:
                self.writer.add_text(name, str(value))
        self.writer.close()
