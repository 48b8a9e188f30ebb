"""`python -m pgolf.run`: the one entry point, and with its sweeper (pgolf/plugins/) all that knows Hydra's runtime.

Words become checked jobs before anything starts; then Hydra makes the run folders and calls `task` for each.
"""

from pgolf.config.shadows import require_no_shadows

if __name__ == "__main__":
    require_no_shadows()  # before the imports below, which a file of the working folder may break

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pgolf.config.completion import BASH
from pgolf.config.compose import Job, job, register_experiments, rehearse, searched
from pgolf.config.folders import look_in
from pgolf.config.help import help_text
from pgolf.config.launchers import work_in
from pgolf.config.places import beside_or_inside
from pgolf.config.resume import resume_words, resumed
from pgolf.config.words import short_words
from pgolf.errors import RankError, RefusedError, UserError
from pgolf.machine.family import end_with, end_with_parent
from pgolf.machine.needs import require
from pgolf.machine.outlet import outlet, say
from pgolf.machine.server import start_importing, stop_importing
from pgolf.machine.signals import StoppedError, one_desk
from pgolf.show.console import open_console

if TYPE_CHECKING:
    from pgolf.recipe import Recipe
    from pgolf.results.attempts import Before


CHECKED: set[tuple[str, str]] = set()  # the jobs of this process, by arm_sha256 and config_sha256


class Failed(CompactHydraException):
    """A job of a sweep that did not finish; Hydra shows the message and not our stack."""


@hydra.main(config_path=str(beside_or_inside("conf")), config_name="config", version_base="1.3")
def task(cfg: DictConfig) -> float:
    """One run, in the folder that Hydra made for it. The value is val_bpb, for sweepers to minimise."""
    words = HydraConfig.get()
    folder, sweep = Path(words.runtime.output_dir), words.mode == RunMode.MULTIRUN
    if "joblib" in str(words.launcher.get("_target_")):
        end_with(os.getppid())
    with one_desk():
        try:
            if not words.job.chdir:
                work_in(words.runtime.cwd)
            given = OmegaConf.to_container(words.overrides.task, resolve=False)
            checked = as_checked(job(cfg, given, dict(words.runtime.choices)))
        except UserError as wrong:
            _stop(f"pgolf: {wrong}", words.mode)
        with _ended_in_words(folder, words.mode):
            return _in_sweep(checked, folder, Path(words.sweep.dir).absolute()) if sweep else _alone(checked, folder)


@contextmanager
def _ended_in_words(folder: Path, mode: RunMode) -> Iterator[None]:
    """Around a run in `folder`: what stops it becomes a message, and all that it said is shown before the end."""
    try:
        yield
    except RefusedError as wrong:
        _stop(f"pgolf: {wrong}\nNothing was trained; what was made ready lies in {folder}", mode, code=2)
    except (UserError, RankError, OSError) as wrong:
        _stop(f"pgolf: {wrong}\nThis run did not finish; what there is lies in {folder}", mode)
    except StoppedError as stop:
        raise _how_to_go_on(stop, folder, mode == RunMode.MULTIRUN) from None
    finally:
        outlet().drain()


def _alone(checked: Job, folder: Path) -> float:
    """A run in a folder of its own."""
    from pgolf.results.attempts import owned

    with owned(folder):
        return _run(checked, folder)


def _in_sweep(checked: Job, folder: Path, sweep: Path) -> float:
    """A job of a sweep: its recorded value if it is complete, or what is left of it to do."""
    from pgolf.results.attempts import taken_up
    from pgolf.results.sweep import require_go
    from pgolf.submission import gather

    try:
        require_go(sweep, checked.config["stop_after"])
        with taken_up(folder, checked) as before:
            if before and before.run.complete:
                return before.run.record["evaluate"]["val_bpb"]
            return _run(checked, folder, before)
    finally:
        gather(sweep, checked.recipe.logger)


def _run(checked: Job, folder: Path, before: "Before | None" = None) -> float:
    console = open_console(checked.config["quiet"])
    with console.live():
        console.progress("start", 0.0, "importing torch")
        from pgolf.pipeline import run
    return run(checked, folder, console, before)


def _how_to_go_on(stop: StoppedError, folder: Path, sweep: bool) -> StoppedError:
    """The same, with the words that go on from there."""
    from pgolf.results.attempts import before

    left = before(folder)
    if sweep:
        return StoppedError(stop.number, f"the same words with hydra.sweep.dir={folder.parent} take the sweep up again")
    return StoppedError(stop.number, f"resume={folder} goes on with it" if left and left.stage else "")


def as_checked(checked: Job) -> Job:
    """The job, if it is one of those that were checked before the first began. A launcher's other process has checked none."""
    if CHECKED and (checked.arm_sha256, checked.config_sha256) not in CHECKED:
        raise UserError(
            "this is not the job that was checked: an option's file or a module has changed since; start again"
        )
    return checked


def _stop(message: str, mode: RunMode, code: int = 1) -> NoReturn:
    """Say why and nothing else, and end with `code`; a sweep hears of it through Hydra, which goes on with the next job."""
    if mode == RunMode.MULTIRUN or os.environ.get("HYDRA_FULL_ERROR") == "1":
        raise Failed(message)
    say(message)
    sys.exit(code)


def main() -> None:
    """Check the words, then hand over to Hydra; a user's mistake is one message and exit code 2."""
    end_with_parent()
    register_experiments()
    sys.argv[1:] = [short_words(a) for a in sys.argv[1:]]
    args = get_args_parser().parse_args()
    if args.shell_completion and args.overrides == ["install=bash"]:
        return print(BASH)
    try:
        if args.config_path:
            raise UserError("--config-path would replace pgolf's own options; --config-dir DIR adds to them")
        look_in([*([args.config_dir] if args.config_dir else []), *searched(args.overrides)])
        if args.help:
            return print(help_text(args.overrides))
        named, others = resume_words(args.overrides)
        if named is not None:
            return _resume(named, others, args.multirun)
        if not (args.hydra_help or args.cfg or args.info or args.shell_completion):
            sweep = args.multirun or "hydra.mode=MULTIRUN" in args.overrides
            rehearsed = rehearse(args.overrides, sweep, args.config_name or "config", args.config_dir)
            if any(one.recipe.machine.nodes > 1 for one in rehearsed) and sweep:
                raise UserError(
                    "machine.nodes: several nodes make one run; the jobs of a sweep take one node each (hydra/launcher=...)"
                )
            CHECKED.update((one.arm_sha256, one.config_sha256) for one in rehearsed)
            here = not any(one.config["dry"] for one in rehearsed) and not _elsewhere(args.overrides)
            if here:
                start_importing()  # beside the checks that need torch in this process
            for one in {one.arm_sha256: one for one in rehearsed if not one.source}.values():
                _check_model(one)
            _require_exports(rehearsed)
            if any(one.config["dry"] for one in rehearsed):
                return _show_plans(rehearsed)
            if any(one.config["quiet"] for one in rehearsed):
                _hush(args.overrides)
            if here:
                _require([one.recipe for one in rehearsed])
            if rehearsed[0].recipe.machine.node_rank:
                return _follow(rehearsed[0])
        logging.raiseExceptions = False  # what Hydra logs and nobody reads any more ends in no stack
        with one_desk():
            task()
    except UserError as wrong:
        stop_importing()
        sys.exit(_refused(wrong))
    except StoppedError as stop:
        say(f"\ninterrupted: {stop}")
        sys.exit(stop.code)
    except KeyboardInterrupt as stop:
        say(f"\ninterrupted{f': {stop}' if str(stop) else ''}")
        sys.exit(130)


def _resume(named: str, words: list[str], sweep: bool) -> None:
    """Go on with a run in its own folder."""
    from pgolf.results.attempts import before, owned

    if sweep:
        raise UserError(
            "resume= goes on with one run; a sweep is taken up by the words that it was given, with its folder"
        )
    found = resumed(named, words)
    if found.job.recipe.machine.node_rank:
        return _follow(found.job)
    folder = found.folder
    start_importing()
    with one_desk(), owned(folder):
        left = before(folder)
        if left is None or left.stage is None or left.run.complete:
            what = "is complete" if left and left.run.complete else "left neither a sealed artifact nor a checkpoint"
            raise UserError(f"resume={named}: this run {what}; there is nothing to go on with")
        with _ended_in_words(folder, RunMode.RUN):
            _run(found.job, folder, replace(left, chosen=found.checkpoint))


def _follow(one: Job) -> None:
    """Take part in the run of node 0, which has the folder, the record and the screen."""
    from pgolf.machine.launch import follow_node_0

    with one_desk():
        try:
            follow_node_0(one.recipe.machine, one.config_sha256)
        except (RefusedError, RankError) as wrong:
            _stop(f"pgolf: {wrong}", RunMode.RUN)


def _check_model(one: "Job") -> None:
    """What is learnt in evaluation, and how weights are stored, suit the model."""
    from pgolf.export.code import script

    recipe = one.recipe
    recipe.ttt.check_model(recipe.model)
    recipe.quant.check_model(recipe.model, lambda: recipe.limits.artifact_bytes - script(one.config).size)


def _hush(overrides: list[str]) -> None:
    """Hydra's own lines about a sweep are not shown, unless its logging is chosen by a word."""
    if not any(word.startswith("hydra/hydra_logging=") for word in overrides):
        sys.argv.append("hydra/hydra_logging=none")


def _elsewhere(overrides: list[str]) -> bool:
    """Whether a launcher takes the jobs to other machines, which then look for themselves what is there."""
    return any(word.startswith("hydra/launcher=") for word in overrides)


def _require(recipes: list["Recipe"]) -> None:
    """GPUs, compilers and text that are asked for are here and suit."""
    for machine in dict.fromkeys(recipe.machine for recipe in recipes):
        require(machine)
    corpora = {data: data.require() for data in dict.fromkeys(recipe.data for recipe in recipes)}
    for recipe in recipes:
        if corpus := corpora[recipe.data]:
            recipe.require_text(corpus)


def _require_exports(jobs: list[Job]) -> None:
    """The user's modules can be taken into train_gpt.py. Making the program of pgolf's own would tell nothing."""
    for config in {tuple(one.own): one.config for one in jobs if one.own}.values():
        from pgolf.export.program import program

        program({key: part for key, part in config.items() if key not in ("seed", "logger")})


def _show_plans(rehearsed: list) -> None:
    from pgolf.config.plan import plans
    from pgolf.export.code import script

    print(plans(rehearsed, lambda job: script(job.config).size))


def _refused(wrong: UserError) -> int:
    say(f"pgolf: {wrong}")
    return 2


def leave() -> NoReturn:
    """End this process now: taking down an interpreter that has imported torch takes a second, for nothing."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
    if "torch" in sys.modules:
        leave()
