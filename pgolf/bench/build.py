"""Building a data set from JSON lines: one and two workers against sentencepiece encoding the same texts on one core.

Text is the standard library's modules, numbered so that no document is another's. A build reads, hashes, encodes, counts bytes,
writes shards and index, and hashes those; starting the workers is in its time.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pgolf.bench.contest import Contest, DisagreementError, Setting
from pgolf.data.build import build
from pgolf.data.bytes import load_tokenizer
from pgolf.data.documents import read_sources
from pgolf.data.make import parse, planned
from pgolf.data.manifest import MANIFEST, Manifest
from pgolf.data.sources import Files
from pgolf.data.tokenizer import train

PIECE = 3000  # characters of a document


def contests(setting: Setting) -> Iterator[Contest]:
    """Building a data set: sentencepiece alone, one worker, two workers."""
    megabytes = setting.pick(1, 30, 400)
    with tempfile.TemporaryDirectory() as folder:
        texts = numbered(megabytes * 1_000_000)
        yield building(Path(folder), texts, f"{megabytes} MB of documents")


def numbered(size: int) -> list[str]:
    """Documents of about `size` characters together."""
    whole = "\n".join(data.decode("utf-8", "replace").replace("\0", "") for data in read_sources().modules.values())
    whole = whole.replace("▁", "_")
    pieces = [whole[i : i + PIECE] for i in range(0, len(whole), PIECE)]
    return [f"{i}\n{pieces[i % len(pieces)]}" for i in range(size // PIECE)]


def building(folder: Path, texts: list[str], name: str) -> Contest:
    """One contest: the same documents to the same shards, by each way."""
    docs, model = folder / "docs.jsonl", folder / "tokens.model"
    docs.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    model.write_bytes(train(texts[:300], 1024))
    sp = load_tokenizer(model)
    plan = planned("bench", parse([f"docs={docs}", f"tokenizer={model}", "val_docs=10"]))

    def built(workers: int) -> Manifest:
        goal = folder / f"out{workers}"
        shutil.rmtree(goal, ignore_errors=True)
        build(goal, plan, "", lambda: Files([docs], [], plan.reading), lambda stage, done: None, workers)
        return Manifest.open(goal / MANIFEST)

    def check(made: dict) -> str:
        encoded, one, two = made.values()
        if one.text_sha256() != two.text_sha256() or one.tokens("train") + one.tokens("val") != encoded:
            raise DisagreementError("the builds differ")
        return f"the same {encoded:,} tokens"

    ways: dict[str, Callable] = {
        "sentencepiece alone": lambda: sum(map(len, sp.encode(texts, add_bos=True, num_threads=1))),
        "one worker": partial(built, 1),
        "two workers": partial(built, 2),
    }
    return Contest(name, ways, check)
