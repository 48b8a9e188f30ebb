"""What counts as code: `train_gpt.py`, one deterministic file that unpacks just what a recipe needs into memory.

The modules are found without importing anything, from the source: what the entry imports, at the top or inside a
function. What it can never reach is pruned, the rest is made small, compressed together with the frozen recipe, and put
behind a few lines that import it from memory and call the entry with the recipe.
"""

import ast
import base64
import bz2
import hashlib
import json
import lzma
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgolf.closure import closure
from pgolf.errors import UserError
from pgolf.files import read_json, write_json
from pgolf.prune import prune
from pgolf.shrink import minified, quiet
from pgolf.strip import strip

if TYPE_CHECKING:
    from pgolf.data import Corpus

PACKAGE = Path(__file__).parent
ENTRY = "pgolf.standalone:main"
NEVER = ("pgolf.journal.Terminal",)  # named where it would be used, and never used by an exported file
TRUSTED = ("pgolf.artifact", "pgolf.codec.streams")  # read only the file that was just sealed, its sha256 compared
PLACES = ("cache", "folder", "tokenizer", "repository", "root", "dataset", "remote_tokenizer")  # not needed once found
NOT_FROZEN = ("seed", "logger", "dry", "name", "author")  # of one run only
DECODERS = {
    "pgolf.codec.Zstd": "pgolf.codec.streams._from_zstd",
    "pgolf.codec.Brotli": "pgolf.codec.streams._from_brotli",
    "pgolf.codec.Lzma": "pgolf.codec.streams._from_lzma",
    "pgolf.codec.Range": "pgolf.codec.streams._from_range",
    "pgolf.codec.RangeRows": "pgolf.codec.streams._from_rows",
}  # an exported file reads what its own codec wrote
LZMA_FILTER = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}

# {0}: what the unpacker imports; {1}: expression that decompresses X; {2}, {3}: module and function of the entry; {4}: X.
# `get_source` lets tracebacks, torch.compile and kernel compilers see the source that runs.
BOOTSTRAP = """\
import base64,json,sys,{0},importlib.util as u
X=base64.b85decode("{4}")
R,*P={1}.decode().split("\\0")
M=dict(zip(P[::2],P[1::2]))
class Packed:
 def find_spec(s,n,p=None,t=None):
  if n in M:return u.spec_from_loader(n,s,origin="packed/"+n,is_package=True)
 def create_module(s,m):pass
 def get_source(s,n):return M[n]
 def exec_module(s,m):exec(compile(M[m.__name__],"packed/"+m.__name__,"exec"),m.__dict__)
sys.meta_path.insert(0,Packed())
if __name__=="__main__":
 from {2} import {3} as main
 main(json.loads(R))
"""
UNPACKERS = {
    "lzma": 'lzma.decompress(X,3,None,[{"id":33,"dict_size":1<<26,"lc":4,"lp":0,"pb":0}])',
    "bz2": "bz2.decompress(X)",
    "brotli": "brotli.decompress(X)",
}


@dataclass(frozen=True)
class Script:
    """A built `train_gpt.py`."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def section(self) -> dict[str, Any]:
        """The record's `code` section."""
        return weigh(self.data)


def script(config: dict, corpus: "Corpus | None" = None) -> Script:
    """The exported file of a resolved config, the same for every seed, logger and number of ranks.

    With a corpus the names and hashes of its files are frozen in; without, the file is for weighing only.
    """
    frozen = {key: value for key, value in config.items() if key not in NOT_FROZEN}
    if "machine" in frozen:
        frozen["machine"] = {key: value for key, value in frozen["machine"].items() if key != "ranks"}
    data = config.get("data", {})
    if data:
        frozen["data"] = data | {key: "" for key in PLACES if key in data}
    if corpus:
        frozen["texts"] = texts(corpus)
    cache = data.get("cache")
    return Script(build(frozen, cache=cache and Path(cache).expanduser() / "exported"))


def texts(corpus: "Corpus") -> dict[str, Any]:
    """Both halves of a corpus with their files named relative to one folder, and that folder, below ~ where it is there."""
    folder = Path(corpus.validation.paths[0]).parent
    home = folder.is_relative_to(Path.home())
    said: dict[str, Any] = {"folder": f"~/{folder.relative_to(Path.home())}" if home else str(folder)}
    for half in (corpus.training, corpus.validation):
        names = {"paths": [Path(p).name for p in half.paths], "tokenizer": Path(half.tokenizer).name}
        said[type(half).__name__] = asdict(half) | names
    return said


@dataclass(frozen=True)
class Reach:
    """From where an exported file reaches what it needs, and what of that it never uses."""

    entry: str = ENTRY
    named: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    typed: tuple[str, ...] = ()

    @classmethod
    def of(cls, recipe: dict, entry: str = ENTRY) -> "Reach":
        """The recipe's classes are named; its words need a type to become an enum's members, its other values need none."""
        named, codecs = targets(recipe), targets(recipe.get("codec"))
        others = [reader for codec, reader in DECODERS.items() if codec not in codecs and codecs <= DECODERS.keys()]
        never = (*NEVER, *others) if codecs else NEVER
        return cls(entry, tuple(sorted(named)), never, tuple(sorted(words(recipe))))


def build(recipe: dict, *, entry: str = ENTRY, package: Path = PACKAGE, cache: Path | None = None) -> bytes:
    """`train_gpt.py` for `recipe`: what the entry and the recipe's `_target_`s need, with the recipe frozen in.

    The same sources and recipe give the same bytes. The recipe must be plain JSON. `cache` is a folder for minified
    modules, which take seconds to make.
    """
    modules = _cached(cache, package, Reach.of(recipe, entry))
    frozen = json.dumps(recipe, separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=True)
    parts = [frozen.replace("\0", "\\u0000"), *(text for name in sorted(modules) for text in (name, modules[name]))]
    assert not any("\0" in part for part in parts), "a module holds the separator"
    brotli = "pgolf.codec.Brotli" in targets(recipe.get("codec"))
    code = min((_wrap(how, packed, entry) for how, packed in _packed("\0".join(parts).encode(), brotli)), key=len)
    compile(code, "train_gpt.py", "exec")
    return code


def _cached(cache: Path | None, package: Path, reach: Reach) -> dict[str, str]:
    """`small`, or what it gave the last time for the same sources and settings. A cache that cannot be used is none."""
    if cache is None:
        return small(package, reach)
    digest = hashlib.sha256(repr((reach, version("python_minifier"), sys.version)).encode())
    for path in sorted(package.rglob("*.py")):
        digest.update(f"\0{path.relative_to(package)}\0".encode() + path.read_bytes())
    kept = cache / f"{digest.hexdigest()[:32]}.json"
    with suppress(UserError):
        return read_json(kept)
    made = small(package, reach)
    with suppress(UserError, OSError):
        cache.mkdir(parents=True, exist_ok=True)
        write_json(kept, made)
    return made


def small(package: Path, reach: Reach) -> dict[str, str]:
    """Module to minified source, for all that can be reached."""
    return minified(readable(package, reach))


def readable(package: Path, reach: Reach) -> dict[str, str]:
    """The same before names were shortened."""
    start = reach.entry.partition(":")[0]
    ours = {name for name in reach.named if name.split(".")[0] == package.name}
    modules = closure({start, *ours}, package)
    if start not in {m.name for m in modules}:
        raise UserError(f"{reach.entry}: there is no module {start} to enter the exported file by")
    stripped = {m.name: strip(m.source, m.name) for m in modules}
    return prune(quiet(stripped, ours, TRUSTED, reach.typed), {reach.entry.replace(":", "."), *ours}, reach.never)


def _packed(text: bytes, brotli: bool) -> Iterator[tuple[str, bytes]]:
    """`text` by every method that may be there to undo it: brotli is only where the artifact needs it too."""
    yield "lzma", lzma.compress(text, lzma.FORMAT_RAW, filters=[LZMA_FILTER])
    yield "bz2", bz2.compress(text)
    if brotli:
        import brotli as engine

        yield "brotli", engine.compress(text, mode=engine.MODE_TEXT, quality=11, lgwin=24)


def _wrap(how: str, packed: bytes, entry: str) -> bytes:
    module, _, function = entry.partition(":")
    return BOOTSTRAP.format(how, UNPACKERS[how], module, function, base64.b85encode(packed).decode()).encode()


def weigh(code: bytes) -> dict[str, Any]:
    """What the record says of the code. weigh(b"") == {"sha256": "e3b0c442…", "bytes": 0}"""
    return {"sha256": hashlib.sha256(code).hexdigest(), "bytes": len(code)}


@dataclass(frozen=True)
class Inside:
    """What a `train_gpt.py` holds: the frozen recipe, and the source of every module by its dotted name."""

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
        recipe, *parts = unpackers[how](packed).decode().split("\0")
        return Inside(json.loads(recipe), dict(zip(parts[::2], parts[1::2], strict=True)))
    except (SyntaxError, ValueError, LookupError, AttributeError, OSError, lzma.LZMAError, brotli.error) as error:
        raise UserError(f"not a train_gpt.py that pgolf exported: {error}") from None


def _payload(tree: ast.Module) -> tuple[bytes, str]:
    """The bytes between the quotes, and the name of the method that unpacks them."""
    lines = [node for node in tree.body if isinstance(node, ast.Assign)]
    packed, unpacking = lines[0].value, lines[1].value
    return base64.b85decode(packed.args[0].value), ast.unparse(unpacking).partition(".")[0]


def targets(recipe: Any) -> set[str]:
    """Dotted names under every `_target_` of a recipe, however deep."""
    if isinstance(recipe, list):
        return {name for item in recipe for name in targets(item)}
    if not isinstance(recipe, dict):
        return set()
    inside = {name for value in recipe.values() for name in targets(value)}
    return inside | ({recipe["_target_"]} if "_target_" in recipe else set())


def words(recipe: Any) -> set[str]:
    """Keys under which a recipe holds text, however deep."""
    values = recipe.items() if isinstance(recipe, dict) else ()
    own = {key for key, value in values if isinstance(value, str)}
    inside = recipe if isinstance(recipe, list) else [value for _, value in values]
    return own.union(*(words(value) for value in inside if isinstance(value, dict | list)))
