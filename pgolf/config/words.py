"""Words of a command line as people type them, in the spelling that Hydra reads.

Hydra takes letters of other alphabets, `~` and `=` in a value only if it is quoted, reads 2026_11_25 as a number, and wants the
name of an option where a group stands alone. A word that needs it is quoted here; all others stay as they are.
"""

import re
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException

from pgolf.config.places import beside_or_inside
from pgolf.data.words import elements, quoted, quoted_text
from pgolf.errors import UserError

KERNELS = re.compile(r"machine\.kernels=[a-z]+(,[a-z]+)*$")  # the name of an option, as machine/kernels=auto
SEED = re.compile(r"seed(?:\.value)?=\s*(?=[-+]?\d|\[|(?:range|choice|shuffle|sort|tag|interval)\()")
NAMES = re.compile(
    r"name|trained|data\.name|logger\.(?:wandb\.)?(?:project|entity)|hydra\.(?:run\.dir|sweep\.(?:dir|subdir))"
)
SENTENCES = re.compile(r"author\.(?!base_pr$)\w+")  # a comma in one divides no sweep
LIST = re.compile(r"^\[([^\[\]]+)\]$")
CALL = re.compile(r"\w+\(.*\)", re.DOTALL)
WRAPPED = re.compile(r"(\[|(?:choice|shuffle|sort|glob)\()(.*)([\])])", re.DOTALL)


def short_words(word: str) -> str:
    """A word of the command line in Hydra's spelling: seeds without `.value`, texts in quotes, --quiet as a word, for Hydra has
    no such flag. Other flags and all else stay.

    >>> short_words("seed=1,2"), short_words("seed=[1,2]"), short_words("name=2026_11_25"), short_words("author.name=Zoë")
    ('seed.value=1,2', 'seed.value=1,2', "name='2026_11_25'", "author.name='Zoë'")
    >>> short_words("--quiet")
    'quiet=true'
    """
    if word == "--quiet":
        return "quiet=true"
    if word.startswith("-") or "=" not in word:
        return word
    if KERNELS.match(word):
        return word.replace(".", "/", 1)
    if found := SEED.match(word):
        value = LIST.sub(r"\1", word[found.end() :].strip())
        return f"seed.value={value}"
    key, _, value = (word := quoted(_part(word))).partition("=")
    return f"{key}={_text(key.lstrip('+'), value.strip())}"


def _part(word: str) -> str:
    """A dot where a part of a group is chosen by name is read as the slash it should be, a slash where a part is left out as the
    dot it should be.

    >>> _part("quant.low_rank=lqer_pr1797"), _part("quant.bits=5"), _part("quant/low_rank=null")
    ('quant/low_rank=lqer_pr1797', 'quant.bits=5', 'quant.low_rank=null')
    """
    key, _, value = word.partition("=")
    if value.strip() == "null" and not key.startswith("hydra/"):
        return f"{key.replace('/', '.')}=null"
    path = key.replace(".", "/")
    options = [beside_or_inside("conf") / path / f"{name}.yaml" for name in value.split(",")]
    return f"{path}={value}" if path != key and all(option.is_file() for option in options) else word


def _text(key: str, value: str) -> str:
    """The value, quoted where its key holds text or where Hydra could not read it."""
    if value in ("", "null", "???") or "${" in value:
        return value
    if SENTENCES.fullmatch(key):
        return quoted_text(value)
    if NAMES.fullmatch(key) and not CALL.fullmatch(value):
        return ",".join(map(quoted_text, elements(value)))
    return readable(value)


def readable(value: str) -> str:
    """`value` with quotes around what Hydra cannot read, element by element of a list or sweep.

    >>> readable("~/x"), readable("[a,é]"), readable("choice(b=1,2)"), readable("5,6")
    ("'~/x'", "[a,'é']", "choice('b=1',2)", '5,6')
    """
    if parsed(f"x={value}"):
        return value
    if found := WRAPPED.fullmatch(value):
        return f"{found[1]}{readable(found[2])}{found[3]}"
    return ",".join(part if parsed(f"x={part}") else quoted_text(part) for part in elements(value))


def parsed(word: str) -> Override | None:
    """A word as Hydra reads it, or None if it cannot."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def check_sweeps(words: Sequence[str], sweep: bool) -> None:
    """UserError for a word that cannot be read, an interval, and, unless this is a sweep, for several values of one key."""
    for word in words:
        given = parsed(word)
        if given is None:
            raise UserError(
                f"{word}: cannot be read; write group=option or group.key=value, a text as 'group.key=\"text\"'"
            )
        if isinstance(given.value(), IntervalSweep):
            raise UserError(f"{word}: an interval is searched and not swept: python -m pgolf.search '{word}'")
        if given.is_sweep_override() and not sweep:
            a_list = "" if word.startswith("seed.") else f", or write one list: '{given.key_or_group}=[...]'"
            raise UserError(f"{word}: several values are a sweep: python -m pgolf.run -m{a_list}")
