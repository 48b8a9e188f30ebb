"""Components as plain values and back, without Hydra: what an artifact or an exported script carries of a recipe."""

from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from types import NoneType
from typing import Any, get_args, get_type_hints


def freeze(value: Any) -> Any:
    """A component as JSON-able values: `_target_` and its fields, enums by name, tuples as lists."""
    if is_dataclass(value):
        target = f"{type(value).__module__}.{type(value).__qualname__}"
        return {"_target_": target} | {f.name: freeze(value.__dict__[f.name]) for f in fields(value)}
    if isinstance(value, Enum):
        return value.name
    return [freeze(v) for v in value] if isinstance(value, tuple) else value


def thaw(frozen: dict) -> Any:
    """The component that `freeze` described. The class's own checks run again."""
    module, _, name = frozen["_target_"].rpartition(".")
    assert module.split(".")[0] == "pgolf", f"not a component of pgolf: {module}"
    cls = import_module(module).__dict__[name]
    hints = get_type_hints(cls)
    return cls(**{f.name: _thawed(frozen[f.name], hints[f.name]) for f in fields(cls)})


def _thawed(value: Any, hint: Any) -> Any:
    if isinstance(value, dict):
        return thaw(value)
    if isinstance(value, list):
        return tuple(value)
    kinds = [k for k in (get_args(hint) or (hint,)) if k is not NoneType]
    return kinds[0][value] if isinstance(value, str) and issubclass(kinds[0], Enum) else value
