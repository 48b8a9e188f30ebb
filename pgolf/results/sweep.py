"""A sweep around its jobs: the plan is put on paper before the first, and the results are gathered after each."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pgolf.config.compose import arms_of, jobs
from pgolf.show.console import say
from pgolf.files import write_json

if TYPE_CHECKING:
    from pgolf.logger import Logger


class WritePlan(Callback):
    """Writes plan.json, the arms and their seeds, before anything of a sweep runs: seeds are fixed beforehand."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        given = OmegaConf.to_container(config.hydra.overrides, resolve=False)  # a word may hold ${seed.value}
        planned = arms_of(jobs([*given["hydra"], *given["task"]], sweep=True))
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", {"arms": planned, "created": datetime.now(UTC).isoformat(timespec="seconds")})


def gather(folder: Path, logger: "Logger") -> None:
    """After a job: summary and submissions, the sweep's report, and, when all jobs have ended, its place in the logger."""
    from pgolf.report import Drawing
    from pgolf.submission import publish
    from pgolf.results.summary import summarise

    drawing = Drawing(folder)
    try:
        publish(folder)
    finally:
        if fault := drawing.finish():
            say(fault)
        if ended(summarise(folder)):
            logger.aggregate(folder, say)


def ended(summary: dict[str, Any]) -> bool:
    """Whether every planned run has come to an end, good or bad."""
    waiting = ("missing", "running")
    return not any(row["status"] in waiting for arm in summary["arms"] for row in arm["not_complete"])
