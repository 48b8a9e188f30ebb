"""A run folder opened to be judged again: its record, the parts that its config names, and the text they are judged by."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pgolf.audit.watch import ALONE
from pgolf.config.schema import build, completed, import_components, read_config
from pgolf.data import Corpus, Data
from pgolf.data.bytes import ByteCounts
from pgolf.errors import UserError
from pgolf.eval import Eval
from pgolf.eval.outline import Outline
from pgolf.files import lookup
from pgolf.files.frozen import TARGET, older
from pgolf.files.names import ARTIFACT
from pgolf.machine import Machine
from pgolf.machine.world import World
from pgolf.model import Model
from pgolf.results.runfolder import Run, read_run, require_sealed
from pgolf.show.console import Console, QuietConsole
from pgolf.stages.judge import load
from pgolf.ttt import TTT


@dataclass(frozen=True)
class Places:
    """Where this machine keeps its data: `words` (`cache`, `folder`) that were given, else what PGOLF_CACHE says."""

    words: dict[str, str] = field(default_factory=dict)
    cache: str | None = None

    def applied(self, data: Any) -> Any:
        """A run's config of data with these places; a folder inside the cache goes where the cache goes."""
        if not isinstance(data, dict):
            return data
        there = {"cache": self.cache} if self.cache else {}
        before, folder = Path(str(data.get("cache"))), Path(str(data.get("folder")))
        if self.cache and folder.is_relative_to(before):
            there["folder"] = str(Path(self.cache) / folder.relative_to(before))
        return data | there | self.words


@dataclass(frozen=True)
class LoadedRun:
    """A run with what its config says is needed to judge it again."""

    run: Run
    config: dict[str, Any]
    here: dict[str, Any]
    """The config with the places of this machine."""
    evaluation: Eval
    ttt: TTT
    machine: Machine
    corpus: Corpus
    ids: np.ndarray
    table: ByteCounts
    console: Console

    @classmethod
    def open(
        cls, folder: Path, places: Places | None = None, console: Console | None = None, trust: bool = False
    ) -> "LoadedRun":
        """Read and build what judges the run in `folder`. Raises UserError for code that is not pgolf's, unless `trust`."""
        run, console = read_run(folder), console or QuietConsole()
        require_sealed(run)
        config = read_config(folder)
        if not trust:
            refuse_foreign(config, folder)
        import_components(config)
        here = completed(config)
        here["data"] = (places or Places()).applied(here.get("data"))
        bases = {"eval": Eval, "ttt": TTT, "machine": Machine}
        parts = [build(here.get(key), base, key) for key, base in bases.items()]
        corpus = prepared(here["data"], console)
        text = corpus.validation
        return cls(run, config, here, *parts, corpus, text.read(), text.byte_counts(), console)

    def model(self, world: World = ALONE) -> Any:
        """A fresh model from the artifact."""
        artifact = self.run.folder / ARTIFACT
        sha256, vocabulary = lookup(self.run.record, "artifact.sha256"), self.corpus.validation.vocab_size
        return load(artifact, sha256, vocabulary, world, meaning=lambda stated: older(stated, Model))

    def chunks(self) -> int:
        """How many the evaluation's own plan has."""
        return self.ttt.plan(self.evaluation, Outline.of(self.ids, self.table)).chunks


def refuse_foreign(config: dict[str, Any], folder: Path, above: str = "") -> None:
    """UserError for the first class that a stranger's config names outside of the package: building it would import it."""
    for key, value in config.items():
        if isinstance(value, dict):
            refuse_foreign(value, folder, f"{above}{key}.")
        elif key == TARGET and not str(value).startswith("pgolf."):
            what = f"{above}{key}={value!r} is code that is not pgolf's"
            raise UserError(f"{folder}: {what}; trust=true imports and runs it")


def prepared(data: Any, console: Console) -> Corpus:
    """The corpus, checked, or built where it can be."""
    component = build(data, Data, "data")
    try:
        with console.live():
            return component.prepare(lambda stage, done: console.progress("corpus", done, stage))
    except UserError as wrong:
        where = (
            "An audit looks where the run's config says, or where data.folder=DIR, data.cache=DIR or PGOLF_CACHE says."
        )
        raise UserError(f"{wrong} {where}") from None
