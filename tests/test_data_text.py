"""Own text in one word: every kind of file, what a shell user types, what cannot be used, what a tokenizer loses."""

import gzip
import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pgolf.config.compose import rehearse
from pgolf.config.words import short_words
from pgolf.data import InOrder, TextFiles
from pgolf.data.bytes import prove
from pgolf.data.manifest import shared_documents
from pgolf.data.shards import ROW, hashes, open_shard
from pgolf.data.sources import Files, Reading, split
from pgolf.data.split import below_fraction
from pgolf.data.words import quoted
from pgolf.errors import ConfigError, UserError
from tests.test_data_stdlib import quiet

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "mats",
    "while",
    "NASA",
    "and",
    "McDonald's",
    "iPhone",
    "users;",
    "été,",
    "中文",
    "🐕",
    "",
]


def documents(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"Document {i}.\n\n" + " ".join(rng.choice(WORDS, 30 + i % 50)) + "\n" for i in range(count)]


@pytest.fixture(scope="module")
def lossy(tmp_path_factory) -> Path:
    """A tokenizer that normalises, as the published ones do."""
    folder = tmp_path_factory.mktemp("lossy")
    text = folder / "text.txt"
    text.write_text("\n".join(documents(200)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "lossy"),
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.98,
        minloglevel=2,
        user_defined_symbols=[*"\ue001\ue002\ue003\ue004"],
    )
    return folder / "lossy.model"


FIELDS = dict(batch_tokens=64, sequence_length=16, dev_tokens=100, dev_checks=0, loader=InOrder())


def text(folder: Path, **changes) -> TextFiles:
    fields = FIELDS | dict(
        name="text",
        vocab_size=400,
        cache=str(folder / "cache"),
        files=(f"{folder}/*.txt",),
        val_files=None,
        val_fraction=0.1,
        document_separator=None,
        field="text",
        errors="strict",
        transform="none",
        tokenizer=None,
        model_type="bpe",
        byte_rule=None,
    )
    return TextFiles(**{**fields, **changes})


@pytest.fixture
def corpus(tmp_path) -> Path:
    for i, one in enumerate(documents(60)):
        (tmp_path / f"{i:02}.txt").write_text(one)
    return tmp_path


def texts_of(prepared, split: str) -> list[str]:
    half = prepared.training if split == "train" else prepared.validation
    ids = np.concatenate([open_shard(path) for path in half.paths])
    sp = sentencepiece.SentencePieceProcessor(model_file=half.tokenizer)
    return sp.decode([part.tolist() for part in np.split(ids, np.flatnonzero(ids == sp.bos_id())[1:])])


def test_files_become_two_splits_and_are_found_again(corpus):
    data = text(corpus)
    assert data.locate() is None
    prepared = data.prepare(quiet)
    train, val = texts_of(prepared, "train"), texts_of(prepared, "val")
    assert sorted(train + val) == sorted(documents(60))
    size = sum(len(t.encode()) for t in val)
    assert size == prepared.validation.bytes == prepared.manifest.bytes("val")
    assert size == pytest.approx(0.1 * sum(len(t.encode()) for t in train + val), rel=0.3)
    assert data.prepare(lambda *a: pytest.fail("was built again")) == data.locate() == prepared


def test_where_files_lie_and_when_they_were_made_does_not_matter(corpus, tmp_path):
    before = text(corpus).prepare(quiet)
    for path in sorted(corpus.glob("*.txt")):
        moved = tmp_path / "elsewhere" / path.name.replace(".txt", ".md")
        moved.parent.mkdir(exist_ok=True)
        path.rename(moved.with_suffix(".txt"))
        os.utime(moved.with_suffix(".txt"), (1, 1))
    data = text(corpus, files=(f"{tmp_path}/elsewhere/*.txt",))
    assert data.prepare(lambda *a: pytest.fail("was built again")) == before
    (tmp_path / "elsewhere/00.txt").write_text("another text")
    assert data.locate() is None


def written(folder: Path, texts: list[str]) -> dict[str, Path]:
    """The same documents in every kind of file."""
    lines = "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode()
    joined = "\n<|end|>\n".join(texts).encode()
    files = {"a.jsonl": lines, "b.jsonl.gz": gzip.compress(lines), "c.jsonl.zst": zstandard.compress(lines)}
    half = len(lines) // 2
    files |= {"d.jsonl.zst": zstandard.compress(lines[:half]) + zstandard.compress(lines[half:])}  # two frames
    files |= {"e.txt": joined, "f.md.gz": gzip.compress(joined), "g.txt.zst": zstandard.compress(joined)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {name: folder / name for name in files}


def read(path: Path, **reading) -> list[str]:
    how = Reading(**{"field": "text", "errors": "strict", "separator": "\n<|end|>\n", **reading})
    return [how.text(item) for item in Files([path], [], how).items()]


def test_every_kind_of_file_holds_the_same_documents(tmp_path):
    texts = documents(50)
    assert {name: read(path) == texts for name, path in written(tmp_path, texts).items()} == dict.fromkeys(
        written(tmp_path, texts), True
    )
    assert read(tmp_path / "e.txt", separator=None) == ["\n<|end|>\n".join(texts)]


def test_parquet_rows_are_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    texts = documents(3000)
    parquet.write_table(pyarrow.table({"id": range(3000), "text": texts}), tmp_path / "a.parquet", row_group_size=700)
    assert read(tmp_path / "a.parquet") == texts
    with pytest.raises(UserError, match=r"no column 'body' \(it has id, text\)"):
        read(tmp_path / "a.parquet", field="body")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"b\.parquet: not parquet that can be read"):
        read(tmp_path / "b.parquet")
    parquet.write_table(pyarrow.table({"text": ["a", None]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match="row 1: its 'text' is null"):
        read(tmp_path / "c.parquet")


@settings(deadline=None, max_examples=200)
@given(
    data=st.binary(max_size=60),
    sizes=st.lists(st.integers(1, 9), min_size=1),
    separator=st.binary(min_size=1, max_size=3),
)
def test_parts_between_separators_whatever_the_blocks(data, sizes, separator):
    blocks, at = [], 0
    while at < len(data):
        size = sizes[len(blocks) % len(sizes)]
        blocks.append(data[at : at + size])
        at += size
    parts = list(split(Path("x"), blocks, separator))
    expected = data.split(separator)
    assert [part for _, part in parts] == (expected if expected[-1] else expected[:-1])
    assert all(data[start : start + len(part)] == part for start, part in parts)


BAD = {
    "latin.txt": (b"caf\xe9 au lait", r"latin\.txt: not UTF-8 at byte 3 \(0xe9\).*errors=replace"),
    "nul.txt": (b"some\0thing", r"nul\.txt: a NUL at byte 4: not UTF-8"),
    "utf16.txt": ("text".encode("utf-16-le"), r"utf16\.txt: a NUL at byte 1"),
    "empty.txt": (b"", r"empty\.txt: is empty"),
    "blank.txt": (b" \n ", "there is no document"),
    "one.txt": (b"a single document", "only one document"),
    "field.jsonl": (b'{"body": "x"}\n', r"field\.jsonl: the line at byte 0 has no field 'text' \(it has body\)"),
    "cut.jsonl": (b'{"text": "x"}\n{"text": "y', r"cut\.jsonl: the line at byte 14 is not JSON, or is cut short"),
    "number.jsonl": (b'{"text": 3}\n', "its field 'text' is int, must be a string"),
    "list.jsonl": (b"[1]\n", "is no object"),
    "half.jsonl": (b'{"text": "\\ud800"}\n', "half of a surrogate pair"),
    "bad.txt.gz": (gzip.compress(b"text" * 999)[:-9], r"bad\.txt\.gz: cut short, or not gzip"),
    "not.txt.gz": (b"text", r"not\.txt\.gz: cut short, or not gzip"),
    "bad.txt.zst": (
        zstandard.compress(os.urandom(3000))[:-9],
        r"bad\.txt\.zst: cut short: its last zstd frame has no end",
    ),
    "not.txt.zst": (b"text", r"not\.txt\.zst: not zstd, or damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_place(tmp_path, name):
    data, told = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told) as refused:
        text(tmp_path, files=(str(tmp_path / name),)).prepare(quiet)
    assert "\n" not in str(refused.value)


def test_what_is_no_text_is_replaced_when_asked(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 \0")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "\\ud800 \\u0000"}\n')
    assert read(tmp_path / "a.txt", errors="replace") == ["caf\ufffd \ufffd"]
    assert read(tmp_path / "b.jsonl", errors="replace") == ["? \ufffd"]


def test_empty_documents_are_dropped_and_counted(corpus):
    (corpus / "more.jsonl").write_text('{"text": ""}\n\n{"text": " \\n"}\n')
    prepared = text(corpus, files=(f"{corpus}/*.txt", f"{corpus}/more.jsonl")).prepare(quiet)
    assert prepared.manifest.dropped["empty"] == 2
    assert sum(prepared.manifest.documents_of(s) for s in ("train", "val")) == 60


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"files": ("nowhere/*.txt",)}, r"data.files='nowhere/\*.txt': no such file, and no file matches"),
        ({"files": ("FOLDER",)}, r"is a folder; name its files, as .*/\*\*/\*\.txt"),
        ({"files": ("FOLDER/cache.bin",)}, r"cache\.bin: must end in \.txt, \.md, \.jsonl, \.parquet"),
        ({"val_files": ("FOLDER/00.txt",)}, "data.val_files=.*is among the training files too"),
        ({"tokenizer": "nowhere.model"}, "data.tokenizer='nowhere.model': no such file"),
        ({"vocab_size": 60000}, r"data.vocab_size=60000: cannot be learned from this training text: .*[Vv]ocab"),
    ],
)
def test_what_is_not_there(corpus, changes, told):
    (corpus / "cache.bin").write_bytes(b"x")
    changes = {
        k: tuple(w.replace("FOLDER", str(corpus)) for w in v) if isinstance(v, tuple) else v for k, v in changes.items()
    }
    with pytest.raises(ConfigError, match=told):
        text(corpus, **changes).prepare(quiet)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"files": ()}, "data.files"),
        ({"errors": "ignore"}, "data.errors='ignore': must be one of strict, replace"),
        ({"transform": "lower"}, "data.transform"),
        ({"model_type": "word"}, "data.model_type"),
        ({"byte_rule": "tabel"}, "data.byte_rule='tabel': must be one of null, table, decoded, sidecar"),
        ({"transform": "caseops", "byte_rule": "table"}, "must be sidecar with data.transform=caseops"),
        ({"val_fraction": 0.9}, "data.val_fraction"),
    ],
)
def test_words_out_of_range(tmp_path, changes, told):
    with pytest.raises(ConfigError, match=told):
        text(tmp_path, **changes)


def test_a_document_of_both_sides_stays_in_validation(corpus):
    texts = documents(60)
    (corpus / "val.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in [*texts[:7], "something else"]))
    prepared = text(corpus, val_files=(f"{corpus}/val.jsonl",)).prepare(quiet)
    assert texts_of(prepared, "val") == [*texts[:7], "something else"]
    assert texts_of(prepared, "train") == texts[7:]
    assert prepared.manifest.dropped["in_validation_too"] == 7
    folder = Path(prepared.training.tokenizer).parent
    rows = [prepared.manifest.index(folder, split) for split in ("train", "val")]
    assert shared_documents(*rows) == []
    assert len(shared_documents(rows[1], rows[1])) == 8
    starts = np.flatnonzero(prepared.validation.read() == 1)
    assert np.array_equal(rows[1]["start"], starts)


@settings(deadline=None, max_examples=100)
@given(sizes=st.lists(st.integers(1, 5000), min_size=2, max_size=60), fraction=st.floats(0.001, 0.5))
def test_the_split_by_hash_is_the_one_of_a_sorted_list(sizes, fraction):
    rows = np.zeros(len(sizes), ROW)
    rows["bytes"] = sizes
    rows["sha256"] = [np.frombuffer(sha256(str(i).encode()).digest(), ">u8") for i in range(len(sizes))]
    below = below_fraction(rows, fraction)
    found = sorted(zip(hashes(rows), sizes, strict=True))
    reached = np.cumsum([size for _, size in found])
    best = min(abs(reached[i] - fraction * reached[-1]) for i in range(len(found) - 1))
    count = sum(sha < below for sha, _ in found)
    assert 1 <= count < len(found)
    assert abs(reached[count - 1] - fraction * reached[-1]) == best


def test_a_tokenizer_that_loses_text_is_told_before_anything_is_trained(corpus, lossy):
    with pytest.raises(
        UserError, match=r"txt, the document at 0: the tokenizer does not give this text back: at"
    ) as told:
        text(corpus, tokenizer=str(lossy)).prepare(quiet)
    assert "byte_rule=sidecar" in str(told.value)
    kept = text(corpus, tokenizer=str(lossy), byte_rule="decoded").prepare(quiet)
    assert kept.manifest.dropped["val_bytes_lost_by_tokenizer"] > 0
    assert prove(kept.validation.read(), lossy, kept.validation.byte_counts()) == kept.validation.bytes


@pytest.mark.parametrize("transform", ["none", "caseops"])
@pytest.mark.parametrize("given", [True, False])
def test_a_sidecar_counts_the_original_less_what_is_stripped(corpus, lossy, transform, given):
    (corpus / "zz.txt").write_text(" \n\ue002 Escaped \ue001, ﬁve  spaces  and THE  end \n ")
    changes = {"tokenizer": str(lossy)} if given else {}
    data = text(
        corpus, val_files=(f"{corpus}/zz.txt",), files=(f"{corpus}/[0-9]*.txt",), transform=transform, **changes
    )
    validation = (prepared := replace(data, byte_rule="sidecar").prepare(quiet)).validation
    original = (corpus / "zz.txt").read_text()
    assert validation.bytes == len((original.strip() if given else original).encode())
    ids, counts = validation.read(), validation.byte_counts()
    assert prove(ids, validation.tokenizer, counts) == validation.bytes == counts.of(ids).sum()
    assert prepared.manifest.transform["name"] == transform


def test_a_tokenizer_without_byte_pieces_cannot_be_counted(corpus, tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat " * 20] * 20),
        model_prefix=str(tmp_path / "plain"),
        vocab_size=40,
        hard_vocab_limit=False,
        user_defined_symbols=["▁"],
        minloglevel=2,
    )
    size = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "plain.model")).get_piece_size()
    for rule, told in (("sidecar", "no byte pieces"), ("table", "does not give this text back")):
        data = text(corpus, tokenizer=f"{tmp_path}/plain.model", byte_rule=rule)
        object.__setattr__(data, "vocab_size", size)  # smaller than any that can be trained with
        with pytest.raises(UserError, match=told):
            data.prepare(quiet)


@pytest.fixture
def counted(corpus):
    """Validation text with a sidecar, its folder, and its tokens."""
    prepared = text(corpus, transform="caseops").prepare(quiet)
    return prepared.validation, Path(prepared.training.tokenizer).parent, prepared


def test_a_sidecar_of_another_stream_is_refused(counted):
    validation, _, _ = counted
    ids, counts = validation.read(), validation.byte_counts()
    with pytest.raises(UserError, match="the sidecar of another stream"):
        prove(ids[:-1], validation.tokenizer, counts)
    with pytest.raises(UserError, match="which is no text"):
        prove(ids, validation.tokenizer, replace(counts, per_token=np.roll(counts.per_token, 1)))
    changed = counts.per_token.copy()
    changed[5] += 1
    with pytest.raises(UserError, match="the document at token 0 count"):
        prove(ids, validation.tokenizer, replace(counts, per_token=changed))
    with pytest.raises(UserError, match="documents are stated"):
        prove(ids, validation.tokenizer, replace(counts, documents=counts.documents[1:]))


@pytest.mark.parametrize("file", ["text_bytes_000000.bin", "text_val_000000.documents", "text_val_000000.bin"])
def test_files_that_disagree_with_the_manifest_are_refused(counted, file):
    validation, folder, prepared = counted
    data = bytearray((folder / file).read_bytes())
    data[-1] ^= 1
    (folder / file).write_bytes(data)
    with pytest.raises(UserError, match=f"{file}: its sha256 is"):
        prepared.manifest.verify(folder)
    with pytest.raises(UserError, match="its sha256 is"):
        validation.byte_counts(), validation.read()


def test_no_glob_for_validation_tokens_finds_the_sidecar(counted):
    _, folder, _ = counted
    assert [p.name for p in folder.glob("text_val_*.bin")] == ["text_val_000000.bin"]


@pytest.fixture
def unread(monkeypatch):
    """Files that are named and not looked at."""
    monkeypatch.setattr("pgolf.data.text.content_sha256", lambda data: str(data.files))


@pytest.mark.parametrize(
    ("word", "files"),
    [
        ("data.files=corpus/*.txt", ["corpus/*.txt"]),
        ("data.files=~/c/[0-9]*.txt", ["~/c/[0-9]*.txt"]),
        ("data.files=[~/a.txt,b c.txt]", ["~/a.txt", "b c.txt"]),
        ("data.files=['a,b.txt', \"c'd.txt\"]", ["a,b.txt", "c'd.txt"]),
        ("data.files='it is (1) #2.txt'", ["it is (1) #2.txt"]),
        ("data.files=été & co.txt", ["été & co.txt"]),
        ("data.files=it's.txt", ["it's.txt"]),
        ("data.files=/a/**/*.jsonl.zst", ["/a/**/*.jsonl.zst"]),
        ("data.files=[a.txt]", ["a.txt"]),
    ],
)
def test_what_a_shell_user_types_is_understood(word, files, unread):
    (job,) = rehearse(["data=text", short_words(word)], sweep=False)
    assert list(job.recipe.data.files) == files
    assert quoted(quoted(word)) == quoted(word)


def test_other_words_of_paths(unread):
    words = ["data=text", "data.files=a.txt", "data.val_files=~/v.txt", "data.tokenizer=~/t.model", "data.cache=~/c d"]
    words.append("data.document_separator=<|end|>")
    (job,) = rehearse([short_words(word) for word in words], sweep=False)
    data = job.recipe.data
    assert (data.val_files, data.tokenizer, data.cache) == (("~/v.txt",), "~/t.model", "~/c d")
    assert data.document_separator == "<|end|>"
    assert [
        job.recipe.data.files for job in rehearse([words[0], short_words("data.files=a.txt,b.txt")], sweep=True)
    ] == [
        ("a.txt",),
        ("b.txt",),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.files=a.txt", "b.txt"], r"b\.txt: a file without a key; quote the glob"),
        (["data.files=a.txt", "data.files=b.txt"], r"given 2 times; write one list: 'data\.files=\[a\.txt,b\.txt\]'"),
        (["data.files=a.txt,b.txt"], r"several values are a sweep: .* or write one list: 'data\.files=\[\.\.\.\]'"),
        ([], r"data\.files=\[\]: must be your files"),
        (["data.file=a.txt"], r"Did you mean 'data\.files'"),
    ],
)
def test_what_a_shell_makes_of_a_list_is_told(words, told):
    with pytest.raises(UserError, match=told):
        rehearse(["data=text", *map(short_words, words)], sweep=False)
