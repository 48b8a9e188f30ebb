"""The plan of a sweep, written before its first job."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from pgolf.config.compose import arms_of, jobs
from pgolf.files import write_json


class WritePlan(Callback):
    """Writes plan.json, the arms and their seeds, before anything of a sweep runs: seeds are fixed beforehand."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        given = OmegaConf.to_container(config.hydra.overrides, resolve=False)  # a word may hold ${seed.value}
        planned = arms_of(jobs([*given["hydra"], *given["task"]], sweep=True, config_name=config.hydra.job.config_name))
        folder = Path(config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", {"arms": planned, "created": datetime.now(UTC).isoformat(timespec="seconds")})
