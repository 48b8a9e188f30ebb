"""The verdict of a whole run: what its figures say, and what its history leaves to be argued."""

from typing import Any

from pgolf.stages.verdict import verdict

RECORD_SECONDS = 600.0  # of training; a run that may take longer is of the track without a limit of compute


def unlimited(limits: dict[str, Any]) -> bool:
    """Whether a run's limits are those of the track without a limit of compute: hours of training, whatever breaks there are."""
    return limits["train_seconds"] > RECORD_SECONDS


def whole_verdict(record: dict[str, Any]) -> str:
    """The rule that is broken, or `needs argument (what)`, or `consistent`.

    A training that was taken up again had breaks in its clock; where steps decide, or hours are given, they change nothing.
    """
    found = verdict(record)
    clock = record["limits"].get("train_steps") is None and not unlimited(record["limits"])
    resumed = clock and any(one["stage"] == "train" for one in record.get("interruptions", []))
    open_points = ["resumed"] * resumed + [record["argument"]] * bool(record.get("argument"))
    return f"needs argument ({'; '.join(open_points)})" if found == "consistent" and open_points else found
