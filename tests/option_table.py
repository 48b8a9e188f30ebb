"""README's table of options, from conf/ and the classes it names: `python -m tests.option_table` writes it."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import yaml

from pgolf.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
CONF = ROOT / "conf"
README = ROOT / "README.md"
HEAD = "| group | what it decides | options |\n|---|---|---|\n"


def table() -> str:
    """A row for each group in the order of the pipeline, and below it one for each choice inside it."""
    return HEAD + "".join(f"| `{group}` | {what} | {', '.join(options)} |\n" for group, what, options in rows())


def rows() -> Iterator[tuple[str, str, list[str]]]:
    """(group, what it decides, options): of a whole group in the words of conf/config.yaml, of a part in its base class's."""
    for group in get_type_hints(Recipe):
        for folder in [CONF / group, *sorted(path for path in (CONF / group).rglob("*") if path.is_dir())]:
            name = folder.relative_to(CONF).as_posix()
            yield name, decides(name), sorted(path.stem for path in folder.glob("*.yaml"))


def decides(group: str) -> str:
    """One line: a group's comment in conf/config.yaml, a part's first words in its base class."""
    if "/" not in group:
        return re.search(rf"^  - {group}: .*# (.*)$", (CONF / "config.yaml").read_text(encoding="utf-8"), re.MULTILINE)[
            1
        ]
    targets = (target(path) for path in sorted((CONF / group).glob("*.yaml")))
    says = base(component(next(filter(None, targets)))).__doc__
    return re.split(r"[.;:]\s|\.$", " ".join(says.split()))[0].removeprefix("In ").replace("|", r"\|")


def target(path: Path) -> str | None:
    """The class that a file names itself, not through what it inherits."""
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("_target_")


def component(dotted: str) -> type:
    module, _, name = dotted.rpartition(".")
    return getattr(import_module(module), name)


def base(cls: type) -> type:
    """The class of pgolf that all components of a kind have above them."""
    return [above for above in cls.__mro__ if above.__module__.startswith("pgolf")][-1]


def written(text: str) -> str:
    """A README with the table as it should be."""
    return re.sub(re.escape(HEAD) + r"(\|.*\n)*", table().replace("\\", r"\\"), text)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
