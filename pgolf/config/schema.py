"""Component classes are the schema of the configuration; a checked node becomes a frozen object.

A node's `_target_` names its class; the class's fields and their types say which keys the node must hold. OmegaConf
converts and checks the values. Checking and building are one walk, so that an error in a `__post_init__` and a
misspelt key are told the same way: dotted key, value, what is allowed, nearest name.
"""

import math
import traceback
from abc import ABC
from dataclasses import fields, is_dataclass, make_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Optional, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pgolf.config.own import targets
from pgolf.errors import ConfigError, UserError, nearest
from pgolf.files import frozen
from pgolf.files.frozen import TARGET, family
from pgolf.files.names import CONFIG


def build(node: Any, base: type, key: str) -> Any:
    """The component that `node` describes, a subclass of `base`; `key` is its dotted place in the config."""
    if not isinstance(node, dict):
        by_name = f"; {key.replace('.', '/')}={node} chooses one by its name" if isinstance(node, str) else ""
        raise ConfigError(key, node, f"must be a component: a mapping with {TARGET}{by_name}")
    cls = component_class(node.get(TARGET), base, key)
    given = {k: v for k, v in node.items() if k != TARGET}
    hints = get_type_hints(cls)
    _check_keys(given, [f.name for f in fields(cls)], cls, key)
    plain = {k: v for k, v in given.items() if _component(hints[k]) is None}
    values = _converted(cls, plain, key)
    for name in given.keys() - plain.keys():
        values[name] = _nested(given[name], hints[name], f"{key}.{name}")
    return cls(**values)


RENAMED = {  # classes that configs of earlier versions name
    "pgolf.quant.Keep": "pgolf.quant.Unquantised",
    "pgolf.schedule.Rows": "pgolf.schedule.Schedule",
}


def completed(node: Any) -> Any:
    """The config of an older run in this version's words: its classes by their new names, and what its missing fields mean."""
    if isinstance(node, list):
        return [completed(value) for value in node]
    if not isinstance(node, dict):
        return node
    target = RENAMED.get(str(node.get(TARGET)), node.get(TARGET))
    node = node | ({TARGET: target} if target else {})
    module, _, name = str(target).rpartition(".")
    cls = getattr(import_module(module), name, None) if module.split(".")[0] == "pgolf" else None
    stated = frozen.completed(cls, node) if is_dataclass(cls) else node
    return {key: completed(value) for key, value in stated.items()}


def component_class(target: object, base: type, key: str) -> type:
    """The class that a `_target_` names, if it is a concrete component of the kind `base`."""
    if target is None:
        raise ConfigError(f"{key}.{TARGET}", "???", "is missing: the option that is chosen names no class")
    module, _, name = RENAMED.get(str(target), str(target)).rpartition(".")
    cls = getattr(_imported(module, target, f"{key}.{TARGET}"), name, None)
    if not (isinstance(cls, type) and is_dataclass(cls) and issubclass(cls, base)) or ABC in cls.__bases__:
        kinds = {kind.rpartition(".")[2]: kind for kind in sorted({dotted(c) for c in _concrete(base)} - {target})}
        near = kinds.get(name) or next((kinds[kind] for kind in get_close_matches(name, kinds, 1, 0.5)), None)
        hint = f" Did you mean {near!r}?" if near else ""
        what = "has no such class" if cls is None else f"is no concrete dataclass below {dotted(base)}"
        raise ConfigError(f"{key}.{TARGET}", target, f"{what}; must name one of: {', '.join(kinds.values())}.{hint}")
    for other in family(base):
        if other.__name__ == cls.__name__ and dotted(other) != dotted(cls) and other.__module__.startswith("pgolf."):
            allowed = f"is named like {dotted(other)}, and a file names a component by its last word; rename the class"
            raise ConfigError(f"{key}.{TARGET}", target, allowed)
    return cls


def _imported(module: str, target: object, key: str) -> Any:
    """The module of a `_target_`, or None if there is none. ConfigError with the place where it fails to import."""
    try:
        return import_module(module) if module else None
    except (Exception, SystemExit) as wrong:
        if isinstance(wrong, ModuleNotFoundError) and f"{module}.".startswith(f"{wrong.name}."):
            return None
        here = [frame for frame in traceback.extract_tb(wrong.__traceback__) if "importlib" not in frame.filename][-1]
        where = f"{here.filename}, line {here.lineno}"
        if isinstance(wrong, SyntaxError):
            where = f"{wrong.filename}, line {wrong.lineno}"
        stated = (str(wrong).splitlines() or [""])[0]
        allowed = f"{module} cannot be imported: {type(wrong).__name__}: {stated} ({where})"
        raise ConfigError(key, target, allowed) from None


def import_components(config: dict) -> None:
    """Make the user's components known, for files that name them by a word. ConfigError for one that cannot be imported."""
    for key, target in targets(config).items():
        if _imported(target.rpartition(".")[0], target, key) is None:
            raise ConfigError(
                key, target, f"there is no module {target.rpartition('.')[0]!r} here; start where its file is"
            )


def dotted(cls: type) -> str:
    """The name to give as `_target_`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _concrete(base: type) -> list[type]:
    """The classes below `base`, itself included, that can be built."""
    return [cls for cls in family(base) if ABC not in cls.__bases__]


def _check_keys(given: dict, known: list[str], cls: type, key: str) -> None:
    for name in given:
        if name not in known:
            allowed = f"is not a field of {cls.__name__}, which has: {', '.join(known)}.{nearest(name, known)}"
            raise ConfigError(f"{key}.{name}", given[name], allowed)
    for name in known:
        if name not in given or given[name] == "???":
            raise ConfigError(f"{key}.{name}", "???", "is missing and must be given")


def _component(hint: Any) -> type | None:
    """The component class inside a type hint, or None for plain values."""
    options = [a for a in get_args(hint) if a is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    return options[0] if len(options) == 1 and is_dataclass(options[0]) else None


def _nested(value: Any, hint: Any, key: str) -> Any:
    if value is None and NoneType in get_args(hint):
        return None
    return build(value, _component(hint), key)


@cache
def node_class(cls: type) -> type:
    """A mutable dataclass that OmegaConf can use as a schema for the plain fields of component class `cls`."""
    hints = get_type_hints(cls)
    plain = [(f.name, _schema_type(hints[f.name]), "???") for f in fields(cls) if _component(hints[f.name]) is None]
    unused = {"repr": False, "eq": False, "namespace": {"__doc__": cls.__name__}}  # each takes its time to make
    return make_dataclass(cls.__name__, plain, **unused)


def _schema_type(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType):
        inner = [a for a in get_args(hint) if a is not NoneType]
        assert len(inner) == 1, f"a field has one type, perhaps with None: {hint}"
        return Optional[_schema_type(inner[0])]  # noqa: UP045
    return list[get_args(hint)[0]] if get_origin(hint) is tuple else hint


def _converted(cls: type, plain: dict, key: str) -> dict:
    schema = OmegaConf.create(node_class(cls))
    hints = get_type_hints(cls)
    for name, value in plain.items():
        try:
            schema[name] = _member(hints[name], value, f"{key}.{name}")
        except OmegaConfBaseException as wrong:
            raise ConfigError(f"{key}.{name}", value, str(wrong).splitlines()[0]) from None
        _check_strict(schema[name], value, f"{key}.{name}")
    return {name: _plain(schema[name]) for name in plain}


def _member(hint: Any, value: Any, key: str) -> Any:
    """A value, which must be the name of a member where it is to be of an enumeration. Raises ConfigError."""
    if isinstance(hint, type) and issubclass(hint, Enum) and value not in (names := hint.__members__):
        near = nearest(str(value).upper(), [name.upper() for name in names])
        raise ConfigError(key, value, f"must be one of {', '.join(m.name for m in hint)}.{near}")
    return value


def _check_strict(converted: Any, value: Any, key: str) -> None:
    """OmegaConf reads 'yes' as true, and lets infinities through."""
    if isinstance(converted, bool) and not isinstance(value, bool):
        raise ConfigError(key, value, "must be true or false")
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ConfigError(key, value, "must be a finite number")


def _plain(value: Any) -> Any:
    return tuple(value) if OmegaConf.is_list(value) else value


def resolved(cfg: DictConfig) -> dict:
    """The config as plain values, every interpolation replaced."""
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as wrong:
        raise ConfigError(wrong.full_key or "config", "???", str(wrong).splitlines()[0]) from None


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved config that a run was made with. UserError if it cannot be read."""
    path = folder / CONFIG
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as wrong:
        raise UserError(f"{path}: cannot be read: {wrong}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a mapping of config groups")
    return config
