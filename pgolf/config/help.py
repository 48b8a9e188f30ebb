"""What `--help` prints: every group, option and experiment with a line each.

The line of an option is the first comment of its file, that of a group the comment beside it in conf/config.yaml. They are
read as text, because Hydra's own help composes everything and lists every group anew for each experiment: seconds.
"""

import re
import shutil
import textwrap
from collections.abc import Iterable
from pathlib import Path

from pgolf.config.folders import own_options
from pgolf.config.places import beside_or_inside, overlays

HEADER = """\
pgolf: train, quantise, pack and honestly evaluate a small language model.

  python -m pgolf.run                                         a laptop run, about two minutes on 2 cores
  python -m pgolf.run quant=int5_gptq ttt=adamw_score_first   parts by name
  python -m pgolf.run -m seed=1337,42,7                       three seeds and a submission folder
  python -m pgolf.run dry=true                                the plan, starting nothing

Choose with group=option; * is the default. Any value can be set as group.key=value."""
FOOTER = """\
--help quant ttt      these groups only
--cfg job             every value of a run; nothing starts
--info defaults       which files they come from
-m, --multirun        a sweep: words with commas make its arms and seeds; the same words with its
                      hydra.sweep.dir=FOLDER take it up again
resume=RUN            go on with a run that was stopped, in its folder and by its words
--quiet               the last line of a run and nothing else; short for quiet=true
--hydra-help          Hydra's own flags
eval "$(python -m pgolf.run -sc install=bash)"   tab completion"""
WIDEST = 120  # characters of a line, also where there is no terminal
GROUP_LINE = re.compile(r"^  - (?:override )?(\S+): (\S+)(?: +# (.+))?$", re.MULTILINE)
HIDDEN = "scale/"  # chosen by scale=laptop itself


def help_text(only: Iterable[str] = ()) -> str:
    """The whole page, or the groups of these names."""
    chosen = {
        name: (default, description)
        for name, default, description in GROUP_LINE.findall(_text(_conf() / "config.yaml"))
    }
    groups = _groups(list(chosen))
    wanted = [name for name in groups if name in set(only)]
    sections = [_section(name, *chosen.get(name, ("", "")), groups[name]) for name in wanted or groups]
    return "\n\n".join(sections if wanted else [HEADER, *sections, FOOTER])


def first_comment(file: Path) -> str:
    """The first line of comment in a YAML file, its package header aside; empty if it does not begin with one."""
    lines = (line for line in _text(file).splitlines() if not line.startswith("# @package"))
    line = next(lines, "")
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def _groups(first: list[str]) -> dict[str, dict[str, Path]]:
    """The files of every group by option: those of the defaults list in its order, a group before those inside it."""
    folders = sorted(folder for folder in _conf().rglob("*") if folder.is_dir())
    found = {str(folder.relative_to(_conf())): _options(folder) for folder in folders} | {"experiment": overlays()}
    for option in own_options():
        found[option.group] = found.get(option.group, {}) | {option.name: option.path}
    order = {name: i for i, name in enumerate(first)}
    shown = [name for name in found if found[name] and not name.startswith(HIDDEN)]
    return {n: found[n] for n in sorted(shown, key=lambda n: (order.get(n.split("/")[0], len(order)), n))}


def _options(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def _section(name: str, default: str, description: str, options: dict[str, Path]) -> str:
    width = max(map(len, options)) + 4
    rows = [_row(f"{' *' if option == default else '  '}{option}", width, file) for option, file in options.items()]
    return "\n".join([f"{name}: {description}" if description else name, *rows])


def _row(label: str, width: int, file: Path) -> str:
    columns = min(WIDEST, shutil.get_terminal_size((WIDEST, 0)).columns)
    return textwrap.fill(f"{label:<{width}}{first_comment(file)}", columns, subsequent_indent=" " * width)


def _conf() -> Path:
    return beside_or_inside("conf")


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig")
