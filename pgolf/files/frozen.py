"""Components as plain values and back, without Hydra: what an artifact or an exported script carries of a recipe.

A class is named by one word, its own name, and looked for among the subclasses of the base that its place asks for: no
name in a file leads to code that is not such a component.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import field, fields, is_dataclass
from enum import Enum
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from pgolf.errors import ArtifactError, ConfigError

C = TypeVar("C")
TARGET = "_target_"
EARLIER = "earlier"


def added(meaning: Any) -> Any:
    """A dataclass field that files written before it existed lack. There it means `meaning`, a plain value or a function that
    takes it out of the fields that such a file states (`was.pop("old name")`). Configs still must state it.
    """
    return field(metadata={EARLIER: meaning})


def completed(cls: type, stated: dict) -> dict:
    """The fields that a file states of a `cls`, with those that it lacks because the class got them later."""
    whole = dict(stated)
    for f in fields(cls):
        if f.name not in whole and EARLIER in f.metadata:
            meaning = f.metadata[EARLIER]
            with suppress(KeyError):
                whole[f.name] = meaning(whole) if callable(meaning) else meaning
    return whole


def freeze(value: Any) -> Any:
    """A component as JSON-able values: the word for its class and its fields, enums by name, tuples as lists."""
    if is_dataclass(value):
        return {TARGET: type(value).__name__} | {f.name: freeze(value.__dict__[f.name]) for f in fields(value)}
    if isinstance(value, Enum):
        return value.name
    return [freeze(v) for v in value] if isinstance(value, tuple) else value


def thaw(frozen: Any, base: type[C]) -> C:
    """The component below `base` that `freeze` described. The class's own checks run again.

    Raises ArtifactError for a word that is no such component, for fields that are missing or not known, and for values that
    the class refuses. Dotted words (pgolf.model.GPT), as files of version 0.1.0 have them, count by their last part.
    """
    if not isinstance(frozen, dict):
        raise ArtifactError(f"meta: {frozen!r} does not describe a {base.__name__}")
    word = str(frozen.get(TARGET)).rpartition(".")[2]
    known = {cls.__name__: cls for cls in family(base)}
    if word not in known:
        raise ArtifactError(f"meta: {word!r} is no {base.__name__} that is known here ({', '.join(sorted(known))})")
    cls, hints = known[word], get_type_hints(known[word])
    stated, names = completed(cls, frozen), {f.name for f in fields(cls)}
    if unknown := sorted(stated.keys() - names - {TARGET}):
        raise ArtifactError(f"meta: {word} has no {', '.join(unknown)}; a later version wrote this")
    if lacking := sorted(names - stated.keys()):
        raise ArtifactError(f"meta: {word} lacks {', '.join(lacking)}")
    try:
        return cls(**{name: _thawed(stated[name], hints[name]) for name in names})
    except (ConfigError, TypeError, ValueError, LookupError) as wrong:
        raise wrong if isinstance(wrong, ArtifactError) else ArtifactError(f"meta: {word}: {wrong}") from None


def family(base: type) -> Iterator[type]:
    """A class and all that inherit from it."""
    yield base
    for cls in base.__subclasses__():
        yield from family(cls)


def _thawed(value: Any, hint: Any) -> Any:
    kinds = [k for k in (get_args(hint) or (hint,)) if k is not NoneType]
    if isinstance(value, dict):
        return thaw(value, kinds[0])
    if isinstance(value, list):
        return tuple(value)
    return kinds[0][value] if isinstance(value, str) and issubclass(kinds[0], Enum) else value
