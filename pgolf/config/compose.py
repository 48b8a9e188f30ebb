"""From words on a command line to checked recipes: what is composed, by whom it is named, and what it is called.

A sweep is expanded and every arm is built before the first job starts, so that one bad arm refuses the whole sweep.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgolf.config.overlays import Overlays, OverlaysOnThePath
from pgolf.config.places import beside_or_inside
from pgolf.config.schema import TARGET, build, resolved
from pgolf.data.words import check_words, quoted
from pgolf.errors import ConfigError, UserError, nearest

if TYPE_CHECKING:
    from pgolf.config.source import SourceRun
    from pgolf.recipe import Recipe

SETTINGS = ("author", "name", "dry", "trained")  # beside the groups of a recipe
SAME_RESULT = (*SETTINGS, "seed", "machine", "logger", "hydra")  # what does not tell one arm of a sweep from another
LAUNCHERS = {
    "slurm": ("slurm", "hydra_submitit_launcher"),
    "submitit": ("slurm", "hydra_submitit_launcher"),
    "joblib": ("joblib", "hydra_joblib_launcher"),
    "ray": ("ray", "hydra_ray_launcher"),
}  # by the beginning of a launcher's name: pgolf's extra, and the plugin that it installs


def register_experiments() -> None:
    """Make every experiment an option of the group `experiment`, in this process, however often it is asked."""
    for plugin in (Overlays, OverlaysOnThePath):
        Plugins.instance().register(plugin)


def short_words(argument: str) -> str:
    """`seed=42` and `seed=1337,42,7` are short for `seed.value=...`: an integer cannot name a Hydra option. A dot where a
    part of a group is chosen by name is read as the slash it should be. Paths get quotes."""
    return quoted(_chosen_part(re.sub(r"^seed=(?=[-+]?\d)", "seed.value=", argument)))


def _chosen_part(argument: str) -> str:
    """`quant.low_rank=lqer_pr1797` as `quant/low_rank=lqer_pr1797`, if all its words are options of that part."""
    key, _, value = argument.partition("=")
    folder = beside_or_inside("conf") / key.replace(".", "/")
    options = [folder / f"{name}.yaml" for name in value.split(",")]
    return f"{key.replace('.', '/')}={value}" if "." in key and all(path.is_file() for path in options) else argument


@dataclass(frozen=True)
class Job:
    """One run to be: its words, its resolved config and its recipe. `arm` is what its results are grouped by."""

    overrides: tuple[str, ...]
    config: dict
    recipe: "Recipe"

    @property
    def source(self) -> "SourceRun | None":
        """The run whose artifact is judged again, if nothing is to be trained. Raises ConfigError."""
        from pgolf.config.source import SourceRun

        return SourceRun.read(Path(self.config["trained"])) if self.config.get("trained") else None

    @property
    def arm(self) -> str:
        """What the results are grouped by, for people: the overrides that make the arm, or "default"."""
        return ",".join(word for word in self.overrides if group_of(word) not in SAME_RESULT) or "default"

    @property
    def arm_sha256(self) -> str:
        """The identity of the arm: the same for every seed, machine and logger."""
        return sha256_of({k: v for k, v in self.config.items() if k not in SAME_RESULT})

    @property
    def config_sha256(self) -> str:
        """The identity of the whole configuration."""
        return sha256_of(self.config)


def group_of(override: str) -> str:
    """`+quant.bits=5` is about quant, `hydra/launcher=ray` about hydra."""
    return re.split(r"[./=@]", override.lstrip("+~"), maxsplit=1)[0]


def sha256_of(plain: dict) -> str:
    """Of the canonical JSON of plain values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def job(cfg: DictConfig, overrides: list[str]) -> Job:
    """Check a composed config and freeze it. Raises ConfigError."""
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
    _check_targets(config)
    parts = {group: build(config.get(group), base, group) for group, base in groups.items()}
    found = Job(tuple(overrides), config, Recipe(**parts))
    if found.source:
        found.source.require(config, found.recipe.ttt.legal)
    return found


def _check_targets(plain: dict, above: str = "") -> None:
    """Every component is a module of pgolf, for those alone are exported and weighed."""
    for name, value in plain.items():
        if isinstance(value, dict):
            _check_targets(value, f"{above}{name}.")
        elif name == TARGET and not str(value).startswith("pgolf."):
            allowed = "must be a class of the package pgolf: train_gpt.py carries and counts nothing else"
            raise ConfigError(f"{above}{TARGET}", value, allowed)


def _check_settings(config: dict) -> None:
    if not isinstance(config["dry"], bool):
        raise ConfigError("dry", config["dry"], "must be true or false")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(config["name"])):
        raise ConfigError("name", config["name"], "must be letters, digits, '.', '_' and '-': it names a folder")
    if not isinstance(config.get("trained"), str | None):
        raise ConfigError("trained", config["trained"], "must be a run's folder, or null")
    for key, value in (config.get("author") or {}).items():
        kind, allowed = (int, "a number") if key == "base_pr" else (str, "one line of text")
        if value is not None and (type(value) is not kind or not str(value).isprintable()):
            raise ConfigError(f"author.{key}", value, f"must be {allowed}, or null")


def rehearse(overrides: list[str], sweep: bool) -> list[Job]:
    """Every job that these words ask for, checked. Raises UserError with one message for the first that cannot run."""
    require_launcher(overrides)
    check_words(overrides)
    with initialize_config_dir(str(beside_or_inside("conf")), version_base="1.3"):
        try:
            return jobs(overrides, sweep)
        except UserError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError) as wrong:
            raise UserError(_message(wrong, overrides)) from None


def require_launcher(overrides: list[str]) -> None:
    """Refuse a launcher that is an extra of pgolf's and not installed, with the line that installs it."""
    for word in overrides:
        group, _, name = word.partition("=")
        for start, (extra, plugin) in LAUNCHERS.items():
            if group == "hydra/launcher" and name.startswith(start) and not _installed(plugin):
                raise UserError(f"{word}: this launcher is not installed: pip install 'pgolf[{extra}]'")


def _installed(plugin: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None


def jobs(overrides: list[str], sweep: bool) -> list[Job]:
    """The jobs of these words, built with the Hydra that is initialised."""
    arms = _expanded(overrides) if sweep else [overrides]
    return _distinct([job(compose("config", overrides=arm), arm) for arm in arms])


def arms_of(found: list[Job]) -> list[dict]:
    """The jobs of a sweep by arm, in order, with the seeds of each: what plan.json holds."""
    arms: dict[str, dict] = {}
    for one in found:
        arm = arms.setdefault(one.arm_sha256, {"arm": one.arm, "arm_sha256": one.arm_sha256, "seeds": []})
        arm["seeds"].append(one.recipe.seed.value)
    return list(arms.values())


def _expanded(overrides: list[str]) -> list[list[str]]:
    """The jobs of a sweep as Hydra's basic sweeper will make them: the product of all lists, `hydra.sweeper.params` first."""
    parse = OverridesParser.create().parse_overrides
    single = [text for text, word in zip(overrides, parse(overrides), strict=True) if not word.is_sweep_override()]
    params = (
        OmegaConf.select(compose("config", overrides=single, return_hydra_config=True), "hydra.sweeper.params") or {}
    )
    parsed = parse([f"{key}={value}" for key, value in params.items()] + overrides)
    return BasicSweeper.split_arguments(parsed, None)[0]


def _distinct(found: list[Job]) -> list[Job]:
    seen: dict[tuple[str, int], Job] = {}
    for one in found:
        twin = seen.setdefault((one.arm_sha256, one.recipe.seed.value), one)
        if twin is not one:
            raise UserError(
                f"two jobs of this sweep are the same run: {' '.join(twin.overrides)} and {' '.join(one.overrides)}"
            )
    return found


def _message(wrong: Exception, overrides: list[str]) -> str:
    """Hydra's message, or, where a key or option is not known, ours with the nearest name."""
    text = str(wrong).strip()
    if isinstance(wrong.__cause__, OmegaConfBaseException):
        text += f" ({str(wrong.__cause__).splitlines()[0]})"
    if "group override must be a string" in text:
        return "a group takes the name of an option, as quant=int6_gptq; a number sets a key, as quant.bits=5"
    if option := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = re.findall(r"^\t(\S+)$", text, re.MULTILINE)
        there = f"{nearest(option.group(2), options)} There are: {', '.join(options)}."
        return f"{option.group(1)}={option.group(2)}: there is no such option.{there}"
    if part := re.search(r"Could not override '([^'/]+)/([^'@]+)", text):
        return f"{part.group(1)}/{part.group(2)}: {_having(*part.groups())}"
    if key := re.search(r"Could not override '([^']+)'", text):
        return f"{key.group(1)}: there is no such key.{_known(key.group(1), overrides)}"
    return text


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


def _known(key: str, overrides: list[str]) -> str:
    """The nearest of all keys that the chosen options have, or else the keys beside it."""
    groups = {folder.name for folder in beside_or_inside("conf").iterdir() if folder.is_dir()} | {"experiment"}
    choices = [word for word in overrides if word.partition("=")[0] in groups and "," not in word]
    plain = OmegaConf.to_container(compose("config", overrides=choices))
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
