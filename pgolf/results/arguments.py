"""The verdict of a whole run: what its figures say, and what its history leaves to be argued."""

from typing import Any

from pgolf.stages.verdict import verdict


def whole_verdict(record: dict[str, Any]) -> str:
    """The rule that is broken, or `needs argument (what)`, or `consistent`.

    A training that was taken up again had breaks in its clock; where steps and not seconds decide, they change nothing.
    """
    found = verdict(record)
    clock = record["limits"].get("train_steps") is None
    resumed = clock and any(one["stage"] == "train" for one in record.get("interruptions", []))
    open_points = ["resumed"] * resumed + [record["argument"]] * bool(record.get("argument"))
    return f"needs argument ({'; '.join(open_points)})" if found == "consistent" and open_points else found
