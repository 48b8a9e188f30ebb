"""`resume=RUN`: a run that was stopped goes on in its own folder, by its own configuration, on this machine.

RUN may also be one of its checkpoints, `RUN/checkpoints/step00000100`, where not the last one is meant.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from pgolf.config.compose import Job, group_of, job
from pgolf.config.places import beside_or_inside
from pgolf.config.schema import completed, read_config
from pgolf.errors import ConfigError, UserError
from pgolf.files import read_json
from pgolf.files.names import CHECKPOINTS, RECORD

FREE = ("machine", "logger", "quiet")  # what may be said again: where it goes on, and who is told


@dataclass(frozen=True)
class Resumed:
    """What to go on with: a run's folder, the checkpoint that was named (None: the last), and the job that the run is."""

    folder: Path
    checkpoint: Path | None
    job: Job


def resume_words(words: list[str]) -> tuple[str | None, list[str]]:
    """What `resume=` names, and the other words. resume_words(["resume=a", "machine.ranks=2"]) == ("a", ["machine.ranks=2"])"""
    named = [word.partition("=")[2] for word in words if word.startswith("resume=")]
    return (named[-1] if named else None), [word for word in words if not word.startswith("resume=")]


def resumed(named: str, words: list[str]) -> Resumed:
    """The run that `resume=named` means, with the words that are given besides. UserError for others than FREE."""
    for word in words:
        if group_of(word) not in FREE:
            allowed = "a run goes on with its own words; besides resume= only machine, logger and quiet may be said"
            raise UserError(f"{word}: {allowed}")
    path = Path(named.strip("'\"")).expanduser().absolute()
    checkpoint = path if path.parent.name == CHECKPOINTS else None
    folder = path.parent.parent if checkpoint else path
    if not (folder / RECORD).is_file() or (checkpoint and not checkpoint.is_dir()):
        raise ConfigError("resume", named, "must be the folder of a run that was stopped, or one of its checkpoints")
    record = read_json(folder / RECORD)
    if not isinstance(record, dict) or not isinstance(record.get("overrides"), list):
        raise UserError(f"{folder / RECORD}: is not a record")
    config = {"quiet": False} | completed(read_config(folder))  # earlier versions do not say
    return Resumed(folder, checkpoint, job(OmegaConf.create(_with(config, words)), [*record["overrides"], *words], {}))


def _with(config: dict[str, Any], words: list[str]) -> dict[str, Any]:
    """`config` with what the words say of its machine, its logger and its quiet."""
    if not words:
        return config
    with initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"):
        stated = OmegaConf.to_container(compose("config", overrides=words), resolve=False)
    found = dict(config)
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        group, name = [*key.split("."), ""][:2]
        found[group] = found[group] | {name: stated[group][name]} if name else stated[group]
    return found
