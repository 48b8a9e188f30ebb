"""`python -m pgolf.search trials=20 'optim.matrix.lr=tag(log,interval(0.01,0.1))' ...`: look for better numbers with Optuna.

Words with a sweep in them are what is searched, the others are fixed. Each trial is a `pgolf.run` of its own and is judged
by dev_bpb of its packed model, on held-out training text: choosing by val_bpb would be training on the validation text.
"""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException

from pgolf.config.command import Result, StatusLines, command
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.errors import UserError
from pgolf.files import lookup, read_json
from pgolf.files.events import EventReader
from pgolf.files.names import RECORD
from pgolf.machine.family import ending_with_me
from pgolf.machine.lock import locked
from pgolf.machine.signals import StoppedError, one_desk

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

OBJECTIVE = "train.dev_bpb.quantized"
POLL_SECONDS = 0.5
WHY = "why"  # a trial's attribute: why it failed
LOCK, TRIAL_LOCK = ".lock", ".trial.lock"
STARTUP_TRIALS = 4  # before anything is compared with a median
OURS = {"trials": "20", "study": "search"}


@dataclass(frozen=True)
class Dimension:
    """One searched word: `key` takes one of `choices`, or a number from `low` to `high`."""

    key: str
    choices: tuple[str, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    log: bool = False

    def chosen(self, trial: "Trial") -> str:
        """The word of this trial."""
        if self.choices is not None:
            return f"{self.key}={trial.suggest_categorical(self.key, self.choices)}"
        return f"{self.key}={trial.suggest_float(self.key, self.low, self.high, log=self.log)!r}"

    @property
    def first(self) -> str:
        """An override with the first value, to check that the key exists."""
        return f"{self.key}={self.choices[0] if self.choices is not None else self.low}"


def dimension(word: Override) -> Dimension:
    """interval(a,b), with tag(log,...) if wanted, or what Hydra's own sweeps list: choice(...), range(...), a,b,c."""
    sweep = word.value()
    if isinstance(sweep, IntervalSweep):
        low, high, log = float(sweep.start), float(sweep.end), "log" in sweep.tags
        if not (low < high and (low > 0 or not log)):
            raise UserError(f"{word.input_line}: an interval goes up, and a logarithmic one begins above 0")
        return Dimension(word.key_or_group, None, low, high, log)
    if isinstance(sweep, ChoiceSweep | RangeSweep):
        return Dimension(word.key_or_group, tuple(word.sweep_string_iterator()))
    raise UserError(f"{word.input_line}: search over choice(...), range(...), interval(...) or a list")


def divided(overrides: Sequence[str]) -> tuple[list[Dimension], list[str]]:
    """What is searched, and what is fixed."""
    parsed = [_parsed(word) for word in overrides]
    space = [dimension(word) for word in parsed if word.is_sweep_override()]
    if not space:
        raise UserError("nothing to search: give at least one word like 'optim.matrix.lr=tag(log,interval(0.01,0.1))'")
    return space, [text for text, word in zip(overrides, parsed, strict=True) if not word.is_sweep_override()]


def _parsed(word: str) -> Override:
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException as wrong:
        raise UserError(f"{word}: {str(wrong).splitlines()[0]}") from None


class RunError(Exception):
    """A trial whose run did not finish."""


class Running:
    """One trial's run, in a process of its own, which ends with this one and holds `lock`, an open file, as long as it lives."""

    def __init__(self, folder: Path, overrides: list[str], lock: int):
        self.folder = folder
        folder.mkdir(parents=True)
        with open(folder / "output.txt", "wb") as out:
            command = [sys.executable, "-m", "pgolf.run", f"hydra.run.dir={folder}", *overrides]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=ending_with_me(),
                pass_fds=(lock,),
            )

    def dev_bpb(self) -> list[float]:
        """dev_bpb at the checks so far."""
        events = EventReader(self.folder).new()
        return [event["dev_bpb"] for event in events if event["event"] == "dev" and event["dev_bpb"] is not None]

    def over(self) -> bool:
        """Wait a moment for the end."""
        try:
            self.process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """The run closes its record and ends its ranks."""
        if self.process.poll() is None:
            self.process.terminate()  # which a background job does not ignore, as it does Ctrl-C
            self.process.wait()

    def objective(self) -> float:
        """The record's, or RunError with the last line that the run said."""
        record = read_json(self.folder / RECORD) if (self.folder / RECORD).exists() else {}
        value = lookup(record, OBJECTIVE)
        if self.process.returncode or value is None:
            printed = (self.folder / "output.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RunError(printed[-1] if printed else f"exit code {self.process.returncode}")
        return value


def tried(trial: "Trial", run: Running) -> float:
    """The trial's objective; TrialPruned where its dev_bpb is behind the median of earlier ones at the same check."""
    from optuna import TrialPruned

    seen, over = 0, False
    while not over:
        over = run.over()
        for value in run.dev_bpb()[seen:]:
            trial.report(value, seen)
            seen += 1
            if trial.should_prune() and not over:
                raise TrialPruned(f"dev_bpb {value:.4f} at check {seen}")
    return run.objective()


def opened(folder: Path, overrides: list[str]) -> "Study":
    """The study of this folder, begun or resumed; trials that a dead search left running are stopped ones."""
    try:
        import optuna
    except ImportError:
        raise UserError("search needs a package that is not here: pip install 'pgolf[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name="pgolf",
        sampler=optuna.samplers.TPESampler(seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        load_if_exists=True,
    )
    before = study.user_attrs.get("words", overrides)
    if before != overrides:
        raise UserError(f"{folder} is the search of other words: {shlex.join(before)}. Name this one with study=...")
    study.set_user_attr("words", overrides)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        stopped(study, trial)
    return study


def stopped(study: "Study", trial: "Trial | FrozenTrial") -> None:
    """A trial that its search did not see the end of: it is none of those asked for, and its words are tried again."""
    from optuna.trial import TrialState

    study.enqueue_trial(trial.params)
    study.tell(trial.number, state=TrialState.FAIL)


def ended(study: "Study") -> int:
    """How many trials came to an end of their own: complete, behind the others, or with a reason why they failed."""
    from optuna.trial import TrialState

    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or WHY in trial.user_attrs for trial in study.trials
    )


def search(
    study: "Study", space: list[Dimension], fixed: list[str], folder: Path, trials: int, say: StatusLines
) -> None:
    """Trials until there are `trials`, those of earlier calls included, and those that were stopped left out."""
    while ended(study) < trials:
        trial = study.ask()
        overrides = [dimension.chosen(trial) for dimension in space]
        trial.set_user_attr("words", overrides)
        say(f"trial {trial.number}  {shlex.join(overrides)}  {one(study, trial, overrides + fixed, folder)}")


def one(study: "Study", trial: "Trial", overrides: list[str], folder: Path) -> str:
    """Run one trial and tell the study. Returns what became of it.

    It waits for the trial of a search that was killed, should that still be ending: never are there two.
    """
    with locked(folder / TRIAL_LOCK, "a trial", wait=True) as lock:
        return _outcome(study, trial, Running(folder / f"trial{trial.number}", overrides, lock))


def _outcome(study: "Study", trial: "Trial", run: Running) -> str:
    from optuna import TrialPruned
    from optuna.trial import TrialState

    try:
        value = tried(trial, run)
    except TrialPruned as behind:
        study.tell(trial, state=TrialState.PRUNED)
        return f"stopped early: {behind}"
    except RunError as wrong:
        trial.set_user_attr(WHY, str(wrong))
        study.tell(trial, state=TrialState.FAIL)
        return f"failed: {wrong}"
    except BaseException:
        stopped(study, trial)
        raise
    finally:
        run.stop()
    study.tell(trial, value)
    return f"dev_bpb {value:.4f}"


def best(study: "Study") -> "FrozenTrial":
    """The complete trial with the lowest dev_bpb."""
    from optuna.trial import TrialState

    done = study.get_trials(states=(TrialState.COMPLETE,))
    if not done:
        raise UserError("no trial was completed; output.txt in the trials' folders says why")
    return min(done, key=lambda trial: trial.value)


def result(study: "Study", fixed: list[str], folder: Path) -> Result:
    """All trials, the best of them, and the command that runs it again."""
    found = best(study)
    again = ["python", "-m", "pgolf.run", *found.user_attrs["words"], *fixed]
    rows = [trial_row(trial) for trial in study.get_trials()]
    complete = sum(row["state"] == "complete" for row in rows)
    text = f"best of {complete} complete trial(s): dev_bpb {found.value:.4f}, trial {found.number}\n{shlex.join(again)}"
    value = {"study": str(folder), "fixed": fixed, "trials": rows, "best": trial_row(found), "run_again": again}
    return Result("pgolf.search/1", value, text)


def trial_row(trial: "FrozenTrial") -> dict[str, Any]:
    """A trial as plain values: its state in lower case, and dev_bpb where it came to its end."""
    words = trial.user_attrs.get("words", [])
    return {"trial": trial.number, "state": trial.state.name.lower(), "words": words, "dev_bpb": trial.value}


def settings(overrides: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    """`trials=` and `study=` are the search's own words; the others are a run's."""
    ours = dict(OURS)
    theirs = []
    for word in overrides:
        key, _, value = word.partition("=")
        if key in OURS:
            ours[key] = value
        else:
            theirs.append(short_words(word))
    if not ours["trials"].isdecimal() or int(ours["trials"]) < 1:
        raise UserError(f"trials={ours['trials']}: must be a whole number from 1")
    if not ours["study"] or "/" in ours["study"]:
        raise UserError(f"study={ours['study']!r}: must be the name of a folder under searches/")
    return ours, theirs


@command(__doc__ + "\ntrials=N (20) in all, study=NAME (search): searches/NAME, taken up again where it stopped.")
def main(overrides: Sequence[str], say: StatusLines) -> Result:
    """Run trials until there are as many as asked for."""
    register_experiments()
    ours, theirs = settings(overrides)
    space, fixed = divided(theirs)
    rehearse([*(dimension.first for dimension in space), *fixed], sweep=False)
    folder = Path("searches", ours["study"]).absolute()
    with one_desk(), locked(folder / LOCK, f"the search {folder}"):
        study = opened(folder, theirs)
        try:
            search(study, space, fixed, folder, int(ours["trials"]), say)
        except StoppedError as stop:
            raise StoppedError(stop.number, "the same words take it up again") from None
    return result(study, fixed, folder)


if __name__ == "__main__":
    sys.exit(main())
