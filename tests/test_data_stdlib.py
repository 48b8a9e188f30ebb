"""The laptop corpus: what a document is, a split that shares no text, a tokenizer that loses nothing, a cache that is whole."""

import errno
import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from pgolf.data import Corpus, Manifest, ShuffledWindows, StdlibText, cached, stdlib
from pgolf.data.documents import (
    Dropped,
    Sources,
    _without_repeats,
    builtin_documents,
    documents,
    module_documents,
    read_sources,
    topic_documents,
)
from pgolf.data.manifest import shared_documents
from pgolf.data.shards import hashes, open_shard, sha256_of, shard_bytes
from pgolf.data.streams import Stream
from pgolf.data.tokenizer import SENTENCE_CHARACTERS, sentences, train
from pgolf.errors import UserError

SMALL = stdlib.plan(512, 0.1)
ODD = [
    "",
    " ",
    "  leading",
    "\tTabs\t\tand\r\nCRLF\r\n\n\n",
    "trailing  \n",
    "\x01\x02\x7f\x0b\x0c control",
    "naïve 中文 🐕‍🦺 \u2585 \u2047 \ufffd \u00a0nbsp \u3000wide",
    "<s></s><unk><0x41>",
]


def quiet(stage: str, done: float) -> None:
    pass


def small_sources() -> Sources:
    """Two packages instead of the whole library."""
    whole = read_sources()
    return Sources({p: d for p, d in whole.modules.items() if p.startswith(("json", "email"))}, b"", ("time",))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A cache folder for corpora of the small sources."""
    monkeypatch.setattr(stdlib, "read_sources", small_sources)
    monkeypatch.setattr(stdlib, "LEAST_BYTES", 1000)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The default corpus, of this interpreter's whole library, and what was shown while it was built."""
    shown = []
    data = StdlibText(
        name="stdlib",
        vocab_size=1024,
        batch_tokens=4096,
        sequence_length=256,
        dev_tokens=32768,
        dev_checks=4,
        loader=ShuffledWindows(),
        cache=str(tmp_path_factory.mktemp("cache")),
        val_fraction=0.035,
    )
    assert data.locate() is None
    return data, data.prepare(lambda *seen: shown.append(seen)), shown


SOURCE = b'''"""Top."""
import os

class A:
    """Of A.

        deep"""
    def f(self): "one"; return 1
    x = """kept"""
'''


def test_docstrings_are_cut_out_and_named():
    code, said = module_documents("pkg/m.py", SOURCE)
    assert code.text == 'import os\n\nclass A:\n    def f(self): ; return 1\n    x = """kept"""\n'
    assert said.text == "pkg.m\nTop.\n\npkg.m.A\nOf A.\n\ndeep\n\npkg.m.A.f\none"


def test_docstrings_with_wide_characters_and_crlf():
    code, said = module_documents("m.py", "é = 1; \r\ndef ü():\r\n    'dö'\r\n    é\r\n".encode())
    assert code.text == "é = 1; \r\ndef ü():\r\n    é\r\n"
    assert said.text == "m.ü\ndö"


def test_topics_longest_first():
    assert [d.name for d in topic_documents(b"topics = {'a': 'x', 'b': 'xx', 'c': 'y'}")] == ["b", "a", "c"]
    assert topic_documents(b"") == []


def test_builtin_modules_speak():
    (document,) = builtin_documents("builtins")
    assert "builtins.len\n" in document.text
    assert "builtins.str.split\n" in document.text


def test_repeated_paragraphs_are_dropped():
    long, seen, dropped = "word " * 30, set(), Dropped()
    assert _without_repeats(f"a\n\n{long}\n\nb", seen, dropped) == f"a\n\n{long}\n\nb"
    assert _without_repeats(f"a\n\n  {long}\n\nc", seen, dropped) == "a\n\nc"
    assert (dropped.repeated_paragraphs, dropped.repeated_bytes) == (1, len(long) + 2)


def test_what_cannot_be_represented_is_left_out_and_counted():
    modules = {
        "a.py": "x = '▁'\n".encode(),
        "b.py": b"y = 1\n",
        "c.py": b"y = 1\n",
        "d.py": b'"\\ud800"\n',
        "e.py": b"'\\0'",
    }
    found, dropped = documents(Sources(modules, b"", ()), lambda done: None)
    assert [d.text for d in found] == ["y = 1\n"]
    assert dropped.not_representable == 3
    assert dropped.empty_or_equal == 1 + 5  # c.py is b.py; code of d and e, docstrings of a, b and c are empty


def plain_build(sources: Sources, fraction: float) -> dict[str, bytes]:
    """The same corpus in a few lines: everything in memory, sorted, cut where the bytes are nearest, encoded one by one."""
    found, _ = documents(sources, lambda done: None)
    reached = np.cumsum([len(d.text.encode()) for d in found])
    count = 1 + int(np.argmin(np.abs(reached[:-1] - fraction * reached[-1])))
    model = train([d.text for d in found[count:]], 512)
    sp = sentencepiece.SentencePieceProcessor(model_proto=model)
    parts = {"train": found[count:], "val": found[:count]}
    shards = {
        f"stdlib_{name}_000000.bin": shard_bytes(
            np.array([i for d in part for i in sp.encode(d.text, add_bos=True)], np.uint16)
        )
        for name, part in parts.items()
    }
    return shards | {"tokenizer.model": model}


def test_a_build_gives_the_bytes_of_a_plain_one(small):
    folder = stdlib.prepare(small, SMALL, quiet)
    for name, data in plain_build(small_sources(), 0.1).items():
        assert (folder / name).read_bytes() == data


def test_sentences_keep_the_text():
    text = "one two\n   three  four " * 500
    parts = list(sentences(text))
    assert " ".join(parts) == text
    assert len(parts) > len(text) / (2 * SENTENCE_CHARACTERS)


def test_tokenizer_gives_every_text_back(whole):
    _, corpus, _ = whole
    sp = sentencepiece.SentencePieceProcessor(model_file=corpus.training.tokenizer)
    assert sp.decode(sp.encode(ODD)) == ODD


def test_training_a_tokenizer_is_deterministic():
    text = "".join(f"line {i} of some text\n" for i in range(2000))
    assert train([text], 400) == train([text], 400)


@pytest.mark.parametrize("wrong", [KeyboardInterrupt(), UserError("line 7: no text"), OSError(errno.EIO, "read")])
def test_what_the_texts_raise_is_not_laid_to_the_tokenizer(wrong):
    def texts():
        yield "a text " * 300
        raise wrong

    with pytest.raises(type(wrong)) as raised:
        train(texts(), 300)
    assert raised.value is wrong


def test_the_whole_library(whole):
    data, corpus, shown = whole
    manifest = corpus.manifest
    assert 250_000 < manifest.bytes("val") < 600_000
    assert 0.025 < manifest.bytes("val") / (manifest.bytes("val") + manifest.bytes("train")) < 0.045
    assert manifest.bytes("val") / manifest.tokens("val") > 2.5
    rows = [manifest.index(Path(corpus.training.tokenizer).parent, split) for split in ("train", "val")]
    assert shared_documents(*rows) == []
    assert manifest.dropped["repeated_paragraphs"] > 100
    assert [done for _, done in shown][-1] == 1.0
    assert len({stage for stage, _ in shown}) == 6
    assert data.locate() == corpus


def texts_of(corpus: Corpus, split: str) -> list[str]:
    """The documents of a split, decoded from its shards."""
    paths = getattr(corpus, split).paths
    ids = np.concatenate([open_shard(path) for path in paths])
    sp = sentencepiece.SentencePieceProcessor(model_file=corpus.training.tokenizer)
    parts = np.split(ids, np.flatnonzero(ids == sp.bos_id())[1:])
    return sp.decode([part.tolist() for part in parts])


def test_shards_hold_the_documents_and_no_long_line_twice(whole):
    """A paragraph is in one document only; hardly a long line can slip through inside another paragraph."""
    _, corpus, _ = whole
    lines = {}
    for split, short in (("training", "train"), ("validation", "val")):
        texts = texts_of(corpus, split)
        index = corpus.manifest.index(Path(corpus.training.tokenizer).parent, short)
        assert [hashlib.sha256(t.encode()).digest() for t in texts] == hashes(index)
        assert [len(t.encode()) for t in texts] == index["bytes"].tolist()
        assert sum(len(t.encode()) for t in texts) == corpus.manifest.bytes(short)
        lines[split] = [line.strip() for t in texts for line in t.splitlines() if len(line.strip()) >= 70]
    teaching = set(lines["training"])
    assert sum(line in teaching for line in lines["validation"]) < 0.02 * len(lines["validation"])


def test_found_again_and_built_anew_only_for_other_inputs(small, monkeypatch):
    first = stdlib.prepare(small, SMALL, quiet)
    assert stdlib.prepare(small, SMALL, lambda *a: pytest.fail("was built again")) == first
    assert stdlib.locate(small, SMALL) == first
    assert stdlib.locate(small, stdlib.plan(512, 0.2)) != first
    changed = small_sources()
    changed.modules["json/decoder.py"] += b"# more\n"
    monkeypatch.setattr(stdlib, "read_sources", lambda: changed)
    assert stdlib.locate(small, SMALL) != first


@pytest.mark.parametrize(
    "file",
    [
        *("stdlib_train_000000.bin", "stdlib_val_000000.bin", "tokenizer.model", "manifest.json"),
        *("stdlib_train_000000.documents", "stdlib_val_000000.documents"),
    ],
)
def test_a_spoilt_cache_is_built_anew_with_a_notice(small, file):
    folder = stdlib.prepare(small, SMALL, quiet)
    before, shown = sha256_of(folder / file), []
    (folder / file).write_bytes((folder / file).read_bytes()[:-9])
    assert stdlib.prepare(small, SMALL, lambda *a: shown.append(a)) == folder
    assert shown[0][0].startswith("building anew")
    assert file in shown[0][0]
    assert sha256_of(folder / file) == before
    assert [p.name for p in small.iterdir()] == [folder.name]


@pytest.mark.parametrize("step", [Manifest.write, Stream.append, Stream.flush], ids=lambda f: f.__qualname__)
def test_a_full_disk_is_told_and_the_build_goes_on_when_there_is_room(small, step):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    owner = Manifest if step is Manifest.write else Stream
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, step.__name__, full)
        with pytest.raises(UserError, match=r"No space left on device\. Make room"):
            stdlib.prepare(small, SMALL, quiet)
    folder = stdlib.prepare(small, SMALL, quiet)
    assert [p.name for p in small.iterdir()] == [folder.name]
    assert cached.flaw(folder) is None


def test_what_an_interrupted_build_left_is_taken_up_or_swept_away(small, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Manifest, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stdlib.prepare(small, SMALL, quiet)
    (left,) = small.iterdir()
    assert left.name.endswith(".building")
    monkeypatch.setattr(cached, "STALE_SECONDS", -1)
    stdlib.prepare(small, stdlib.plan(512, 0.2), quiet)
    assert not left.exists()


def test_a_cache_that_cannot_be_made(small):
    small.write_text("a file is in the way")
    with pytest.raises(UserError, match=r"Not a directory.*data.cache=.*PGOLF_CACHE"):
        stdlib.prepare(small, SMALL, quiet)


def test_a_stripped_interpreter(small, monkeypatch):
    monkeypatch.setattr(stdlib, "LEAST_BYTES", 10**9)
    with pytest.raises(UserError, match="a stripped installation"):
        stdlib.prepare(small, SMALL, quiet)


def build_in_process(cache: Path) -> str:
    stdlib.read_sources, stdlib.LEAST_BYTES = small_sources, 1000
    return str(stdlib.prepare(cache, SMALL, quiet))


def test_two_processes_may_build_at_once(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(build_in_process, [tmp_path, tmp_path], chunksize=1)
    assert folders[0] == folders[1]
    assert [str(p) for p in tmp_path.iterdir()] == folders[:1]
    assert cached.flaw(Path(folders[0])) is None
