"""From words on a command line to checked recipes: what is composed, by whom it is named, and what it is called.

A sweep is expanded and every arm is built before the first job starts, so that one bad arm refuses the whole sweep.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pgolf.config import own
from pgolf.config.folders import Own, chosen_files, files_named, look_in, refusal, require_no_clash
from pgolf.config.identity import arm_sha256, config_sha256
from pgolf.config.launchers import require_job_time, require_launcher
from pgolf.config.overlays import OptionsOnThePath, Overlays
from pgolf.config.places import PACKAGE, beside_or_inside
from pgolf.config.schema import TARGET, build, resolved
from pgolf.config.words import check_sweeps, parsed
from pgolf.data.words import check_words
from pgolf.errors import ConfigError, UserError, nearest
from pgolf.machine.hardware import cores, gpus_present

if TYPE_CHECKING:
    from pgolf.config.source import SourceRun
    from pgolf.recipe import Recipe

SETTINGS = ("author", "name", "dry", "quiet", "trained", "stop_after", "checkpoint")  # beside the groups of a recipe
SAME_RESULT = (*SETTINGS, "seed", "machine", "logger", "hydra")  # what does not tell arms apart
SWEEPER = "hydra_plugins.pgolf.PgolfSweeper"
PLUGINS = str(PACKAGE / "plugins")  # holds a part of the namespace package in which Hydra looks for the sweeper


def register_experiments() -> None:
    """Make every experiment, and every option of the user's, one of Hydra's, in this process, however often it is asked."""
    if PLUGINS not in sys.path:
        sys.path.append(PLUGINS)
    for plugin in (Overlays, Own, OptionsOnThePath):
        Plugins.instance().register(plugin)
    if SWEEPER not in Plugins.instance().class_name_to_class:  # Hydra had looked for plugins before we came
        Plugins.instance().register(get_class(SWEEPER))


@dataclass(frozen=True)
class Job:
    """One run to be: its words, its resolved config and its recipe. `arm` is what its results are grouped by."""

    overrides: tuple[str, ...]
    config: dict
    recipe: "Recipe"
    own: dict[str, str]
    """The user's modules that it runs, with their sha256."""
    files: tuple[str, ...]
    """The user's files of options that are chosen."""

    @cached_property
    def source(self) -> "SourceRun | None":
        """The run whose artifact is judged again, if nothing is to be trained. Raises ConfigError."""
        from pgolf.config.source import SourceRun

        folder = self.config.get("trained")
        return SourceRun.of(Path(folder), self.config, self.recipe.ttt.legal) if folder else None

    @property
    def arm(self) -> str:
        """What the results are grouped by, for people: the overrides that make the arm, or "default"."""
        return ",".join(word for word in self.overrides if tells(word)) or "default"

    @cached_property
    def text(self) -> str | None:
        """A hash of the text, where the settings alone do not say what it is."""
        return self.recipe.data.content_sha256()

    @cached_property
    def arm_sha256(self) -> str:
        """The identity of the arm: the same for every seed, place and machine."""
        return arm_sha256(self.config, self.text, self.own)

    @property
    def config_sha256(self) -> str:
        """The identity of the run: its arm, its seed, and what its exported file is made for."""
        return config_sha256(self.config, self.text, self.own)


def tells(override: str) -> bool:
    """Whether a word says what is computed: not `seed.value=1`, and not `data.cache=/tmp`."""
    return group_of(override) not in SAME_RESULT and not override.startswith("data.cache=")


def group_of(override: str) -> str:
    """`+quant.bits=5` is about quant, `hydra/launcher=ray` about hydra."""
    return re.split(r"[./=@]", override.lstrip("+~"), maxsplit=1)[0]


def job(cfg: DictConfig, overrides: list[str], choices: Mapping[str, str | None]) -> Job:
    """Check a composed config and freeze it; `choices` are its options by group. Raises ConfigError."""
    from pgolf.recipe import Recipe  # 14 groups of components, which --help and --cfg do without

    if OmegaConf.is_missing(cfg.seed, "value"):
        raise ConfigError(
            "seed.value", "???", "must be given; seed=three is for sweeps (-m), a run takes one, as seed=42"
        )
    config = resolved(cfg)
    config.pop("hydra", None)
    config.pop("experiment", None)
    groups = get_type_hints(Recipe)
    for key in config:
        if key not in groups and key not in SETTINGS:
            near = nearest(key, [*groups, *SETTINGS, "experiment"])
            raise ConfigError(key, config[key], f"is not a group or setting.{near}")
    _check_settings(config)
    modules = own.sha256s({key: value for key, value in config.items() if key not in ("seed", "logger")})
    parts = {group: build(config.get(group), base, group) for group, base in groups.items()}
    parts["machine"] = parts["machine"].settled(cores(), gpus_present())
    found = Job(tuple(overrides), config, Recipe(**parts), modules, tuple(chosen_files(choices)))
    if found.source:
        found.source.require(config, found.recipe.ttt.legal)
    return found


def _check_settings(config: dict) -> None:
    for key in ("dry", "quiet"):
        if not isinstance(config[key], bool):
            raise ConfigError(key, config[key], "must be true or false")
    if not (isinstance(config["name"], str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", config["name"])):
        raise ConfigError("name", config["name"], "must be letters, digits, '.', '_' and '-': it names a folder")
    if not isinstance(config.get("trained"), str | None):
        raise ConfigError("trained", config["trained"], "must be the folder of a run or a sweep, or null")
    if not (
        (every := config["checkpoint"].get("every_seconds")) is None or (type(every) in (int, float) and every > 0)
    ):
        raise ConfigError("checkpoint.every_seconds", every, "must be more than 0, or null")
    if not (config["stop_after"] is None or (type(config["stop_after"]) is int and config["stop_after"] >= 1)):
        raise ConfigError("stop_after", config["stop_after"], "must be a number of failed jobs, at least 1, or null")
    for key, value in (config.get("author") or {}).items():
        kind, allowed = (int, "a number") if key == "base_pr" else (str, "one line of text")
        if value is not None and (type(value) is not kind or not str(value).isprintable()):
            raise ConfigError(f"author.{key}", value, f"must be {allowed}, or null")


def rehearse(
    overrides: list[str], sweep: bool, config_name: str = "config", config_dir: str | None = None
) -> list[Job]:
    """Every job that these words ask for, checked. Raises UserError with one message for the first that cannot run.

    Composed from the same folders, by the same plugins and in the same order as the run afterwards.
    """
    require_launcher(overrides)
    check_words(overrides)
    check_sweeps(overrides, sweep)
    look_in([*([config_dir] if config_dir else []), *searched(overrides)])
    require_no_clash()
    with initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"):
        try:
            found = jobs(overrides, sweep, config_name)
        except UserError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError) as wrong:
            raise UserError(_message(wrong, overrides, config_name)) from None
    require_no_clash()  # a config may name more folders
    return found


def searched(overrides: list[str]) -> list[str]:
    """The folders that `hydra.searchpath=[...]` names. Raises UserError for what is no list."""
    found = []
    for word in overrides:
        if word.startswith("hydra.searchpath=") and (given := parsed(word)):
            paths = given.value() or []
            if not isinstance(paths, list):
                raise UserError(f"{word}: must be a list of folders, as 'hydra.searchpath=[{paths}]'")
            found += [str(path) for path in paths if "://" not in str(path) or str(path).startswith("file://")]
    return found


def jobs(overrides: list[str], sweep: bool, config_name: str = "config") -> list[Job]:
    """The jobs of these words, built with the Hydra that is initialised."""
    arms = _expanded(overrides, config_name) if sweep else [overrides]
    return distinct([composed(config_name, arm, sweep) for arm in arms])


def composed(config_name: str, overrides: list[str], sweep: bool = False) -> Job:
    """One job, with the Hydra that is initialised; of a `sweep` its launcher must give it the time."""
    cfg = compose(config_name, overrides=overrides, return_hydra_config=True)
    choices, launcher = dict(cfg.hydra.runtime.choices), cfg.hydra.launcher
    with open_dict(cfg):
        del cfg.hydra
    found = job(cfg, overrides, choices)
    if sweep:
        require_job_time(launcher, found.recipe.limits)
    return found


def _expanded(overrides: list[str], config_name: str) -> list[list[str]]:
    """The jobs of a sweep as Hydra's basic sweeper will make them: the product of all lists, `hydra.sweeper.params` first."""
    parse = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader()).parse_overrides
    single = [text for text, word in zip(overrides, parse(overrides), strict=True) if not word.is_sweep_override()]
    whole = compose(config_name, overrides=single, return_hydra_config=True)
    params = OmegaConf.select(whole, "hydra.sweeper.params") or {}
    swept = parse([f"{key}={value}" for key, value in params.items()] + overrides)
    for word in swept:
        if word.is_sweep_override() and not any(True for _ in word.sweep_string_iterator()):
            raise UserError(f"{word.input_line}: names nothing to sweep over")
    return BasicSweeper.split_arguments(swept, None)[0]


def distinct(found: list[Job]) -> list[Job]:
    """The same jobs. UserError if two of them are one."""
    seen: dict[tuple[str, int], Job] = {}
    for one in found:
        twin = seen.setdefault((one.arm_sha256, one.recipe.seed.value), one)
        if twin is not one:
            both = " and ".join(" ".join(job.overrides) for job in (twin, one))
            raise UserError(f"two jobs of this sweep are the same run: {both}")
    return found


def _message(wrong: Exception, overrides: list[str], config_name: str) -> str:
    """Hydra's message, or, where a key or option is not known, ours with the nearest name."""
    text = str(wrong).strip()
    if isinstance(wrong.__cause__, OmegaConfBaseException):
        text += f" ({str(wrong.__cause__).splitlines()[0]})"
    if "group override must be a string" in text:
        return "a group takes the name of an option, as quant=int6_gptq; a number sets a key, as quant.bits=5"
    if option := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        there = f"{nearest(option.group(2), options)} There are: {', '.join(options)}."
        return f"{option.group(1)}={option.group(2)}: there is no such option.{_passed_over(*option.groups()) or there}"
    if part := re.search(r"Could not override '([^'/]+)/([^'@]+)", text):
        return f"{part.group(1)}/{part.group(2)}: {_having(*part.groups())}"
    if key := re.search(r"Could not override '([^']+)'", text):
        return f"{key.group(1)}: there is no such key.{_known(key.group(1), overrides, config_name)}"
    return text


def _passed_over(group: str, name: str) -> str:
    """Why a file that has the name of an option is none."""
    return "".join(
        f" {path} is there, but {why}." for path in files_named(group, name) if (why := refusal(path, group))
    )


def _having(group: str, part: str) -> str:
    """Which options of a group are put together from parts of that name, as some of `ttt` are from a `mixer`."""
    folder, _, name = f"{group}/{part}".rpartition("/")
    defaults = {file.stem: _defaults(file) for file in sorted((beside_or_inside("conf") / folder).glob("*.yaml"))}
    having = [option for option in defaults if _inherits(option, name, defaults)]
    if not having:
        return "there is no such key."
    return f"the {folder} that is chosen has no {name}; of its options these have one: {', '.join(having)}."


def _defaults(file: Path) -> list[str]:
    """The first words of an option's defaults list: the parts it has, and the options it inherits from."""
    return re.findall(r"^  - ([\w/]+)(?=[:\s]|$)", file.read_text(encoding="utf-8"), re.MULTILINE)


def _inherits(option: str, part: str, defaults: dict[str, list[str]]) -> bool:
    above = defaults.get(option, [])
    return part in above or any(_inherits(one, part, defaults) for one in above if one != option)


def _known(key: str, overrides: list[str], config_name: str) -> str:
    """The nearest of all keys that the chosen options have, or else the keys beside it; nothing where they do not compose."""
    groups = {folder.name for folder in beside_or_inside("conf").iterdir() if folder.is_dir()} | {"experiment"}
    choices = [word for word in overrides if word.partition("=")[0] in groups and "," not in word]
    try:
        plain = OmegaConf.to_container(compose(config_name, overrides=choices))
    except (HydraException, OmegaConfBaseException, ValueError):
        return ""  # a hint that fails must not hide the message
    above, keys = key.rpartition(".")[0], [k for k in dotted_keys(plain) if not k.endswith(TARGET)]
    beside = [k for k in keys if k.rpartition(".")[0] == above]
    alike = [k for k in keys if k != key and ("." in k) >= ("." in key)]
    return nearest(key, alike) or f" There are: {', '.join(beside)}."


def dotted_keys(plain: dict, before: str = "") -> list[str]:
    """Every key of nested mappings, dotted."""
    keys = []
    for key, value in plain.items():
        keys.append(f"{before}{key}")
        if isinstance(value, dict):
            keys += dotted_keys(value, f"{before}{key}.")
    return keys
