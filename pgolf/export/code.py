"""What counts as code: `train_gpt.py`, one deterministic file that unpacks just what a recipe needs into memory.

It is one program, made small, compressed together with the frozen recipe and put behind a few lines that run it. Nothing in
it says where it was made: no path, no host, and of the machine only what decides how fast a step is.
"""

import ast
import base64
import bz2
import hashlib
import json
import lzma
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import python_minifier

from pgolf.config.identity import computed
from pgolf.errors import UserError
from pgolf.export.merge import GIVEN
from pgolf.export.program import ENTRY, OLDER, PACKAGE, program, targets, users_modules
from pgolf.files import read_json, write_json
from pgolf.files.frozen import TARGET
from pgolf.files.home import expanded
from pgolf.files.leftovers import HOUR, clear
from pgolf.machine.kernels import text

if TYPE_CHECKING:
    from pgolf.data import Corpus

DATA = "data"  # the folder, relative to where the file runs, that has the texts in a folder of their name
LZMA_FILTER = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}

# {0}: what decompresses; {1}: what is compressed; {2}: how. `linecache` lets tracebacks and kernel compilers see the source
# that runs.
BOOTSTRAP = """\
# coding: latin-1
import linecache,{0}
S={0}.decompress({1}.encode("latin-1"){2}).decode()
linecache.cache["packed"]=len(S),None,S.splitlines(1),"packed"
exec(compile(S,"packed","exec"))
"""
SETTINGS = {"lzma": ',3,None,[{"id":33,"dict_size":1<<26,"lc":4,"lp":0,"pb":0}]', "bz2": "", "brotli": ""}


@dataclass(frozen=True)
class Script:
    """A built `train_gpt.py`."""

    data: bytes

    @property
    def size(self) -> int:
        """Bytes of the exported file."""
        return len(self.data)

    def section(self) -> dict[str, Any]:
        """The record's `code` section."""
        return weigh(self.data)


def script(config: dict, corpus: "Corpus | None" = None) -> Script:
    """The exported file of a resolved config, the same for every seed, logger and number of ranks.

    With a corpus the names and hashes of its files are frozen in; without, the file is for weighing only.
    """
    frozen = computed(config) | ({"texts": texts(corpus)} if corpus else {})
    kernels = frozen.get("machine", {}).get("kernels", {})
    if "source" in kernels:  # what Triton compiles is shipped as it stands
        frozen["machine"] = frozen["machine"] | {"kernels": kernels | {"source": list(text())}}
    cache = config.get("data", {}).get("cache")
    entry = OLDER if config.get("trained") else ENTRY
    return Script(build(frozen, entry=entry, cache=cache and expanded(cache) / "exported"))


def texts(corpus: "Corpus") -> dict[str, Any]:
    """Both halves of a corpus with the names of their files, and the folder where the file looks for them unless told."""
    settings: dict[str, Any] = {"folder": f"{DATA}/{corpus.manifest.name}"}
    for name, half in (("training", corpus.training), ("validation", corpus.validation)):
        names = {"paths": numbered([Path(p).name for p in half.paths]), "tokenizer": Path(half.tokenizer).name}
        settings[name] = {TARGET: f"{type(half).__module__}.{type(half).__qualname__}"} | asdict(half) | names
    return settings


def numbered(names: list[str]) -> list:
    """`names`, or, where they only count up from 0, what is before and after the number, and how many digits it has.

    numbered(["a_00.bin", "a_01.bin"]) == ["a_", ".bin", 2]
    """
    head, digits, tail = re.fullmatch(r"(.*?)(\d*)(\D*)", names[0], re.DOTALL).groups()
    counted = [f"{head}{i:0{len(digits)}}{tail}" for i in range(len(names))]
    return [head, tail, len(digits)] if counted == names else names


def build(recipe: dict, *, entry: str = ENTRY, package: Path = PACKAGE, cache: Path | None = None) -> bytes:
    """`train_gpt.py` for `recipe`: what the entry and the recipe's `_target_`s need, with the recipe frozen in.

    The same sources and recipe give the same bytes. The recipe must be plain JSON. `cache` is a folder for minified
    programs, which take seconds to make.
    """
    return wrapped(recipe, _cached(cache, recipe, entry, package))


def wrapped(recipe: dict, small: str) -> bytes:
    """The file that runs the program `small` with `recipe`, in the fewest bytes."""
    text = f"{GIVEN}={literal(recipe)}\n{small}"
    brotli = "pgolf.codec.Brotli" in targets(recipe.get("codec"))
    code = min((_wrap(how, packed) for how, packed in _packed(text.encode(), brotli)), key=len)
    compile(code, "train_gpt.py", "exec")
    return code


def literal(recipe: dict) -> str:
    """Plain JSON as a line of Python without spaces between its parts."""
    same = json.loads(json.dumps(recipe, allow_nan=False, sort_keys=True))
    return python_minifier.minify(repr(same), remove_literal_statements=False, hoist_literals=False)


def _cached(cache: Path | None, recipe: dict, entry: str, package: Path) -> str:
    """The small program, or what it was the last time for the same sources and recipe. A cache that cannot be used is none."""
    if cache is None:
        return program(recipe, entry, package).small()
    named = sorted(targets(recipe))
    users = sorted({(m.name, m.sha256) for name in named for m in users_modules(name, package)})
    digest = hashlib.sha256(repr((entry, named, users, version("python_minifier"), sys.version)).encode())
    for path in sorted(package.rglob("*.py")):
        digest.update(f"\0{path.relative_to(package)}\0".encode() + path.read_bytes())
    kept = cache / f"{digest.hexdigest()[:32]}.json"
    with suppress(UserError):
        return read_json(kept)
    made = program(recipe, entry, package).small()
    with suppress(UserError, OSError):
        cache.mkdir(parents=True, exist_ok=True)
        clear(cache, kept.name, HOUR)
        write_json(kept, made)
    return made


def _packed(text: bytes, brotli: bool) -> Iterator[tuple[str, bytes]]:
    """`text` by every method that may be there to undo it: brotli is only where the artifact needs it too."""
    yield "lzma", lzma.compress(text, lzma.FORMAT_RAW, filters=[LZMA_FILTER])
    yield "bz2", bz2.compress(text)
    if brotli:
        import brotli as engine

        yield "brotli", engine.compress(text, mode=engine.MODE_TEXT, quality=11, lgwin=24)


def _wrap(how: str, packed: bytes) -> bytes:
    return BOOTSTRAP.format(how, quoted(packed), SETTINGS[how]).encode("latin-1")


def quoted(data: bytes) -> str:
    """A string literal in triple quotes whose characters, in latin-1, are `data`. Escaped is what editors, git or Python might
    change: NUL, carriage return, a line feed after a blank; and backslashes, and quotes that could end it.

    quoted(b"a'b\\n") == "'''a'b\\n'''"
    """
    text = data.decode("latin-1").replace("\\", "\\\\").replace("\r", "\\r")
    text = re.sub(r"(?<=\s)\n", r"\\n", text)
    text = re.sub(r"'(?='|$(?!\n))", r"\\'", text)
    return "'''" + re.sub(r"\0(?=([0-7])?)", lambda found: r"\x00" if found[1] else r"\0", text) + "'''"


def weigh(code: bytes) -> dict[str, Any]:
    """What the record says of the code. weigh(b"") == {"sha256": "e3b0c442…", "bytes": 0}"""
    return {"sha256": hashlib.sha256(code).hexdigest(), "bytes": len(code)}


@dataclass(frozen=True)
class Inside:
    """What a `train_gpt.py` holds: the frozen recipe, and source by name: one program."""

    recipe: dict[str, Any]
    modules: dict[str, str]


def unpack(code: bytes) -> Inside:
    """The inside of a `train_gpt.py` that `build` made. Executes nothing."""
    import brotli

    unpackers: dict[str, Callable[[bytes], bytes]] = {
        "lzma": lambda data: lzma.decompress(data, lzma.FORMAT_RAW, None, [LZMA_FILTER]),
        "bz2": bz2.decompress,
        "brotli": brotli.decompress,
    }
    try:
        packed, how = _payload(ast.parse(code))
        recipe, _, source = unpackers[how](packed).decode().partition("\n")
        return Inside(ast.literal_eval(recipe.removeprefix(f"{GIVEN}=")), {"program": source})
    except (
        SyntaxError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OSError,
        lzma.LZMAError,
        brotli.error,
    ) as error:
        raise UserError(f"not a train_gpt.py that pgolf exported: {error}") from None


def _payload(tree: ast.Module) -> tuple[bytes, str]:
    """The bytes that the string stands for, and the name of the method that unpacks them."""
    unpacked = [node for node in tree.body if isinstance(node, ast.Assign)][0].value.func.value  # noqa: RUF015
    made = unpacked.args[0]  # "…".encode("latin-1"), or base64.b85decode("…") in files of version 0.1.0
    old = ast.unparse(made.func) == "base64.b85decode"
    packed = base64.b85decode(made.args[0].value) if old else made.func.value.value.encode("latin-1")
    return packed, ast.unparse(unpacked.func).partition(".")[0]
