"""Nothing of a part is forgotten: its line in --help, its option, its test, its docstring, its place in README's table."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from types import NoneType
from typing import get_args, get_type_hints

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from pgolf.files.frozen import family
from pgolf.recipe import Recipe
from tests.option_table import CONF, README, ROOT, component, target, written

GROUPS = sorted(get_type_hints(Recipe))
FILES = [path for group in GROUPS for path in sorted((CONF / group).rglob("*.yaml"))]


@cache
def components() -> list[type]:
    """Every class that a config can name: all that is below, or held by, the base class of a group."""
    for group in GROUPS:
        for module in walk_packages([str(ROOT / "pgolf" / group)], f"pgolf.{group}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    found: dict[type, None] = {}
    waiting = list(get_type_hints(Recipe).values())
    while waiting:
        for cls in family(waiting.pop()):
            if cls not in found:
                found[cls] = None
                waiting += [kind for hint in get_type_hints(cls).values() for kind in held(hint)]
    return [cls for cls in found if cls.__module__.startswith("pgolf.")]


def held(hint: object) -> Iterator[type]:
    """The component classes inside a field's type."""
    for kind in get_args(hint) or (hint,):
        if kind is not NoneType and isinstance(kind, type) and is_dataclass(kind):
            yield kind


def concrete(cls: type) -> bool:
    return not getattr(cls, "__abstractmethods__", None) and "ABC" not in [base.__name__ for base in cls.__bases__]


@cache
def mentions() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").glob("test_*.py")))


def test_every_option_has_a_first_line_for_help():
    forgotten = [
        path.relative_to(ROOT).as_posix() for path in FILES if not re.match(r"# \S.{5,}\n", path.read_text("utf-8"))
    ]
    assert forgotten == [], "the first line of an option is a comment: what --help says of it"


def test_every_component_has_an_option():
    """A concrete class that no file in conf/ names cannot be chosen."""
    named = {name for path in CONF.rglob("*.yaml") for name in re.findall(r"_target_: (\S+)", path.read_text("utf-8"))}
    classes = {component(name) for name in named if name.startswith("pgolf.")}
    forgotten = [f"{cls.__module__}.{cls.__name__}" for cls in components() if concrete(cls) and cls not in classes]
    assert forgotten == [], "no file in conf/ has _target_: this class"


def test_every_option_states_every_field():
    """Itself, or through the option that it inherits from; so does every part that it holds."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for path in FILES:
            name = path.relative_to(CONF).with_suffix("")
            node = OmegaConf.select(
                composed(name, "override /" in path.read_text("utf-8")), ".".join(name.parent.parts)
            )
            check_fields(OmegaConf.to_container(node), name.as_posix())


def composed(name: Path, sets_others: bool) -> DictConfig:
    """A file of conf/ alone, or, where it sets other groups too, chosen in the whole configuration."""
    return compose("config", overrides=[f"{name.parent}={name.name}"]) if sets_others else compose(name.as_posix())


def check_fields(node: dict, place: str) -> None:
    cls = component(node.pop("_target_"))
    assert cls in components(), f"{place}: {cls.__name__} is below no base class of a group"
    assert sorted(node) == sorted(f.name for f in fields(cls)), f"{place}: the fields of {cls.__name__}"
    for key, value in node.items():
        if isinstance(value, dict):
            check_fields(value, f"{place}.{key}")


def test_every_component_is_spoken_of_by_a_test():
    options = {component(name): path.stem for path in FILES if (name := target(path))}
    forgotten = [
        cls.__name__
        for cls in components()
        if concrete(cls)
        and not re.search(rf"\b{cls.__name__}\b", mentions())
        and not re.search(rf"[\"/=]{options.get(cls, cls.__name__)}\b", mentions())
    ]
    assert forgotten == [], "no tests/test_*.py names this class or its option"


def test_every_component_says_what_it_is():
    forgotten = [cls.__name__ for cls in components() if not cls.__doc__ or cls.__doc__.startswith(f"{cls.__name__}(")]
    assert forgotten == [], "a class without a docstring"


def test_readme_has_every_option():
    text = README.read_text(encoding="utf-8")
    assert text == written(text), "README's table of options is not conf/: python -m tests.option_table writes it"
