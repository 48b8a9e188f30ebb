"""The user's options: YAML files of `./conf` and `./experiments`, of --config-dir and of hydra.searchpath.

They add to pgolf's and never replace one. Taken are files that are meant for pgolf; what else lies there belongs to other
programs. A file is read once, so that what was checked is what runs.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgolf.config.own import for_pgolf
from pgolf.config.places import beside_or_inside, overlays
from pgolf.errors import UserError
from pgolf.files.frozen import TARGET
from pgolf.files.home import expanded

GROUP, OVERLAY = "experiment", "overlay.yaml"
PACKAGE = re.compile(r"\A\s*#\s*@package +(\S+)")
FOLDERS: list[Path] = []  # where options of the user's lie, besides ./experiments
TEXTS: dict[Path, str] = {}  # what was read of them


@dataclass(frozen=True)
class Option:
    """One YAML file: the option `name` of `group`."""

    group: str
    name: str
    path: Path

    @property
    def word(self) -> str:
        """What chooses it on a command line."""
        return f"{self.group}={self.name}"


def look_in(named: Iterable[str]) -> None:
    """Begin anew, with these folders and then ./conf, unless that is pgolf's. UserError for one that is not there."""
    FOLDERS.clear()
    TEXTS.clear()
    for folder in named:
        add_folder(folder)
    here = Path("conf").absolute()
    if here.is_dir() and not _pgolfs(here):
        add_folder(str(here))


def add_folder(folder: str) -> Path:
    """Take the options of one more folder. UserError if it is not there."""
    path = expanded(folder.removeprefix("file://"))
    if not path.is_dir():
        raise UserError(f"{folder}: there is no such folder of options")
    if path not in FOLDERS:
        FOLDERS.append(path)
    return path


def _pgolfs(folder: Path) -> bool:
    return folder.resolve() in (beside_or_inside("conf").resolve(), beside_or_inside("experiments").resolve())


def files_named(group: str, name: str) -> list[Path]:
    """The user's files for an option, meant for pgolf or not."""
    found = [folder / group / f"{name}.yaml" for folder in FOLDERS]
    here = Path("experiments").absolute()
    if group == GROUP and not _pgolfs(here):
        found.append(here / name / OVERLAY)
    return [path for path in found if path in TEXTS or path.is_file()]


def chosen_files(choices: Mapping[str, str | None]) -> list[str]:
    """The user's files among the options of a config, {"ttt": "mine"}, as they are seen from here; whole configs come first."""
    found = [path for path in TEXTS if path.parent in FOLDERS]
    for group, name in choices.items():
        if name and not pgolfs(group, name):
            found += [path for path in files_named(group, name) if path in TEXTS and not refusal(path, group)]
    return [os.path.relpath(path) for path in found]


def pgolfs(group: str, name: str) -> bool:
    """Whether pgolf has an option of this name."""
    return (beside_or_inside("conf") / group / f"{name}.yaml").is_file() or (group == GROUP and name in overlays())


def own_options() -> list[Option]:
    """Every option of the user's that is meant for pgolf, in folders named like pgolf's groups."""
    here = Path("experiments").absolute()
    found = [Option(GROUP, p.parent.name, p) for p in sorted(here.glob(f"*/{OVERLAY}")) if not _pgolfs(here)]
    for folder in FOLDERS:
        for top in [*sorted({group.partition("/")[0] for group in groups()}), GROUP]:
            files = sorted((folder / top).rglob("*.yaml"))
            found += [Option(file.parent.relative_to(folder).as_posix(), file.stem, file) for file in files]
    return [option for option in found if not refusal(option.path, option.group)]


def require_no_clash() -> None:
    """UserError for the first file of the user's that has the name of an option of pgolf's, or of another file of theirs."""
    pgolfs = {
        f"{group}={file.stem}": file for group in groups() for file in (beside_or_inside("conf") / group).glob("*.yaml")
    }
    pgolfs |= {f"{GROUP}={name}": file for name, file in overlays().items()}
    mine: dict[str, Path] = {}
    for option in own_options():
        other = pgolfs.get(option.word) or mine.setdefault(option.word, option.path)
        if other != option.path and other.read_bytes() != option.path.read_bytes():
            whose = "an option of pgolf's" if option.word in pgolfs else f"{other} too"
            raise UserError(f"{option.path}: {option.word} is {whose}; give the file another name")


@cache
def groups() -> tuple[str, ...]:
    """The folders of pgolf's options."""
    conf = beside_or_inside("conf")
    return tuple(sorted(folder.relative_to(conf).as_posix() for folder in conf.rglob("*") if folder.is_dir()))


@cache
def pgolfs_keys() -> set[str]:
    """What a whole config may hold at its top."""
    config = yaml.safe_load((beside_or_inside("conf") / "config.yaml").read_text(encoding="utf-8"))
    return {*config, GROUP, *(group.partition("/")[0] for group in groups())}


def text(path: Path) -> str:
    """A file of the user's as it was when first read, without a byte-order mark, with plain line ends. Raises UserError."""
    if path not in TEXTS:
        try:
            TEXTS[path] = re.sub("\r\n?", "\n", path.read_bytes().decode("utf-8-sig"))
        except UnicodeDecodeError as wrong:
            raise UserError(f"{path}: not UTF-8 text (byte {wrong.start}); save it as UTF-8") from None
        except OSError as wrong:
            raise UserError(f"{path}: cannot be read: {wrong.strerror}") from None
    return TEXTS[path]


def refusal(path: Path, group: str) -> str:
    """Why a file is none of pgolf's options, or the empty string.

    One with a `_target_` must name a class built on pgolf; one with a package header, or an overlay, must set keys of pgolf's
    alone; an author's and one that begins from another option of its group need neither.
    """
    try:
        source = text(path)
        node = yaml.safe_load(source)
    except UserError as wrong:
        return str(wrong).partition(": ")[2]
    except (yaml.YAMLError, ValueError) as wrong:
        return f"it is no YAML: {_yaml_fault(wrong)}"
    if not isinstance(node, dict):
        return "it is no mapping"
    if TARGET in node:
        return for_pgolf(node[TARGET])
    package = "_global_" if path.name == OVERLAY else (PACKAGE.match(source) or ["", ""])[1]
    top = pgolfs_keys()
    if package:
        keys = node if package == "_global_" else [package.replace("/", ".").partition(".")[0]]
        other = [key for key in keys if key not in top and package != "_group_"]
        return f"its key {other[0]!r} is none of pgolf's" if other else ""
    if group.startswith("author") or group.partition("/")[0] == "hydra" or _begins_from(node, path, group):
        return ""
    return f"it has neither a {TARGET} nor a package header"


def _begins_from(node: dict, path: Path, group: str) -> bool:
    """Whether its defaults name an option of the same group that is pgolf's."""
    defaults = node.get("defaults")
    names = (
        [name for name in defaults if isinstance(name, str) and name != path.stem] if isinstance(defaults, list) else []
    )
    files = [beside_or_inside("conf") / group / f"{name.rpartition('/')[2]}.yaml" for name in names]
    siblings = [path.with_name(f"{name.rpartition('/')[2]}.yaml") for name in names]
    return any(map(Path.is_file, files)) or any(file.is_file() and not refusal(file, group) for file in siblings)


def _yaml_fault(wrong: Exception) -> str:
    mark = getattr(wrong, "problem_mark", None)
    what = getattr(wrong, "problem", None) or str(wrong).splitlines()[0]
    return f"line {mark.line + 1}: {what}" if mark else what


class Own(ConfigSource):
    """One folder of the user's."""

    @staticmethod
    def scheme() -> str:
        return "own"

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return Path(self.path)

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._file(config_path)
        if file is None:
            raise ConfigLoadError(f"Config not found: {config_path}")
        found = result(file, self.provider, self.full_path())
        if paths := file.parent == self.folder and OmegaConf.select(found.config, "hydra.searchpath"):
            taken = [str(p) if str(p).startswith("pkg://") else f"own://{add_folder(str(p))}" for p in paths]
            OmegaConf.update(found.config, "hydra.searchpath", taken)
        return found

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        folder = self.folder / config_path.strip("/")
        return folder.is_dir() or any(path.is_relative_to(folder) for path in TEXTS)

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        found, folder = [], self.folder / config_path.strip("/")
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            group = path.is_dir() and not path.name.startswith((".", "__"))
            option = path.suffix == ".yaml" and self.is_config(f"{config_path}/{path.stem}")
            if (group and results_filter != ObjectType.CONFIG) or (option and results_filter != ObjectType.GROUP):
                found.append(path.stem if option else path.name)
        return found

    def _file(self, config_path: str) -> Path | None:
        """An option that is meant for pgolf and not one of its own, or, at the top of the folder, a whole config."""
        inside = config_path.strip("/").removesuffix(".yaml")
        file, group = self.folder / f"{inside}.yaml", inside.rpartition("/")[0]
        if not (file in TEXTS or file.is_file()) or (beside_or_inside("conf") / f"{inside}.yaml").is_file():
            return None
        return file if not group or not refusal(file, group) else None


def result(file: Path, provider: str, where: str, package: str | None = None) -> ConfigResult:
    """A file as Hydra takes it. Raises ConfigLoadError with one line."""
    try:
        source = text(file)
        node: Any = OmegaConf.create(source) if yaml.safe_load(source) is not None else OmegaConf.create()
        header = ConfigSource._get_header_dict(source)
    except UserError as wrong:
        raise ConfigLoadError(str(wrong)) from None
    except (yaml.YAMLError, ValueError, OmegaConfBaseException) as wrong:
        raise ConfigLoadError(f"{file}: it is no YAML: {_yaml_fault(wrong)}") from None
    return ConfigResult(provider, where, node, header | ({"package": package} if package else {}))
