"""`trained=RUN`: judge the artifact of an earlier run again, with other windows, other learning or other ranks. `trained=SWEEP`
takes the run of that sweep which has the seed and was trained with the words that are given now.

Nothing is trained. The words must be those that RUN was trained with, its account of training is taken over, and the
sealed bytes are copied; their hash is checked where they are opened.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from pgolf.config.identity import OF_ONE_RUN, PLACES
from pgolf.config.schema import completed, read_config
from pgolf.errors import ConfigError, UserError
from pgolf.files import lookup, read_json
from pgolf.files.names import ARTIFACT, RECORD

JUDGING = ("machine", "eval", "ttt", "limits.eval_seconds", *(key for key in OF_ONE_RUN if key != "seed"))
CHECKS = (
    "data.scored_tokens",
    "data.scored_bytes",
    "data.most_shared",
)  # of a text, which the manifests prove to be the same


@dataclass(frozen=True)
class SourceRun:
    """A run that sealed an artifact; what became of it afterwards does not matter."""

    folder: Path
    record: dict
    config: dict

    @classmethod
    def of(cls, folder: Path, config: dict, legal: bool) -> "SourceRun":
        """The run in `folder`; of the runs of a sweep there, the one whose training differs least from `config`.

        UserError if there is no sealed artifact."""
        jobs = [] if (folder / RECORD).exists() else sorted(path.parent for path in folder.glob(f"*/{RECORD}"))
        if not jobs:
            return cls.read(folder)
        runs = [cls(job, record, completed(read_config(job))) for job in jobs if (record := _sealed(job))]
        if not runs:
            raise ConfigError("trained", str(folder), "must be the folder of a sweep of which a run sealed an artifact")
        return min(runs, key=lambda run: len(run.differences(config, legal)))

    @classmethod
    def read(cls, folder: Path) -> "SourceRun":
        """UserError if there is no sealed artifact in `folder`."""
        if (record := _sealed(folder)) is None:
            raise ConfigError("trained", str(folder), "must be the folder of a run that sealed an artifact")
        return cls(folder, record, completed(read_config(folder)))

    def differences(self, config: dict, legal: bool) -> list[tuple[str, object, object]]:
        """(key, theirs, ours) of all with which something else would have been trained.

        What learns from validation text before sealing (not `legal`) belongs to training.
        """
        free = [*CHECKS, *(f"data.{place}" for place in PLACES), *(key for key in JUDGING if legal or key != "ttt")]
        theirs, ours = flattened(self.config, free), flattened(config, free)
        both = ((key, theirs.get(key), ours.get(key)) for key in sorted(theirs.keys() | ours.keys()))
        return [(key, there, here) for key, there, here in both if there != here]

    def require(self, config: dict, legal: bool) -> None:
        """ConfigError for the first word of `config` with which something else would have been trained."""
        for key, there, here in self.differences(config, legal):
            raise ConfigError(key, here, f"{self.folder} was trained with {there!r}; give the words that it was given")

    def copied_fields(self, folder: Path, manifest: str, legal: bool) -> dict:
        """The record's `train`, `artifact`, `trained_code` and `receipts` of that run, whose artifact is now in `folder` too."""
        if lookup(self.record, "data.manifest_sha256") != manifest:
            raise UserError(f"{self.folder} was trained on another build of this data set: the manifests differ")
        shutil.copyfile(self.folder / ARTIFACT, folder / ARTIFACT)
        receipts = [r for r in self.record["receipts"] if not (legal and r["part"].startswith("ttt"))]
        parts = {part: self.record[part] for part in ("train", "artifact")}
        return parts | {"trained_code": self.record["code"], "receipts": receipts}


def _sealed(folder: Path) -> dict | None:
    """The record of a run that sealed an artifact, which is there; else None. UserError for a record that cannot be read."""
    record = read_json(folder / RECORD)
    stated = isinstance(record, dict) and lookup(record, "train.steps") and lookup(record, "artifact.sha256")
    return record if stated and (folder / ARTIFACT).exists() else None


def flattened(config: dict, without: list[str] | tuple[str, ...], above: str = "") -> dict[str, object]:
    """Every value by its dotted key, but for the groups and keys of `without`.

    >>> flattened({"a": {"b": 1, "c": 2}, "d": 3}, ["a.c", "d"])
    {'a.b': 1}
    """
    found: dict[str, object] = {}
    for name, value in config.items():
        key = f"{above}{name}"
        if key not in without:
            found |= flattened(value, without, f"{key}.") if isinstance(value, dict) else {key: value}
    return found
