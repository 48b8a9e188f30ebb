"""`python -m pgolf.data build` and `look`: any number of workers, any kill, the same bytes; what may not be built."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pgolf.data import BuiltText, assemble, build, make
from pgolf.data.__main__ import main
from pgolf.data.bytes import load_tokenizer
from pgolf.data.manifest import MANIFEST, Manifest
from pgolf.data.shards import ROW, open_shard, shard_bytes
from pgolf.data.split import training_texts
from pgolf.data.streams import Kind, Stream
from pgolf.errors import UserError
from tests import programs
from tests.processes import PATIENCE, children, command_of, until, until_gone
from tests.test_data import model as tiny_model  # noqa: F401
from tests.test_data import published
from tests.test_data_stdlib import quiet
from tests.test_data_text import FIELDS, documents, lossy  # noqa: F401

SMALL = "from pgolf.data import assemble; assemble.UNIT_BYTES, assemble.NOTED_UNITS = 4000, 2"
SLOW = """
import time
from pgolf.data.assemble import Assembly
add = Assembly.add
Assembly.add = lambda self, encoded: (time.sleep(0.03), add(self, encoded))
"""


@pytest.fixture
def docs(tmp_path, monkeypatch) -> Path:
    """400 documents as JSON lines, a cache of its own, and units so small that there are many."""
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in documents(400)), encoding="utf-8")
    monkeypatch.setenv("PGOLF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(assemble, "UNIT_BYTES", 4000)
    monkeypatch.setattr(assemble, "NOTED_UNITS", 2)
    monkeypatch.setattr(assemble, "TOKENS", Kind(".bin", "<u2", 1024, 7000))
    return path


def built(docs: Path, out: Path, *words: str) -> Manifest:
    asked = ("mine", f"docs={docs}", f"out={out}", "workers=1", "val_docs=50", *words)
    assert main(["build", *asked]) == 0
    return Manifest.open(out / MANIFEST)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_built_set_is_in_the_challenges_format_and_holds_the_documents(docs, tmp_path, capsys):
    manifest = built(docs, tmp_path / "out", "vocab_size=400", "source=here", "licence=CC0")
    folder, texts = tmp_path / "out", documents(400)
    names = [f"mine_train_{i:06d}.bin" for i in range(len(manifest.of("train")))]
    assert list(manifest.of("train")) == names
    assert len(names) > 2
    shards = [open_shard(folder / name) for name in names]
    assert [len(shard) for shard in shards[:-1]] == [7000] * (len(shards) - 1)
    ids, sp = np.concatenate(shards), load_tokenizer(folder / "tokenizer.model")
    rows = manifest.index(folder, "train")
    assert [sp.decode(part.tolist()) for part in np.split(ids, rows["start"][1:])] == texts[50:]
    assert np.array_equal(rows["start"], np.flatnonzero(ids == sp.bos_id()))
    assert rows["bytes"].tolist() == [len(t.encode()) for t in texts[50:]]
    assert manifest.documents_of("val") == 50
    assert manifest.origin == {"source": "here", "licence": "CC0"}
    assert set(manifest.made_with) == {"pgolf", "python", "sentencepiece"}
    assert "training: 350 documents" in capsys.readouterr().out
    data = BuiltText(**FIELDS, name="built", vocab_size=400, cache="", folder=str(folder))
    assert data.prepare(quiet).manifest == manifest == data.require().manifest


def test_learning_a_tokenizer_meets_no_validation_document(docs, tmp_path, monkeypatch):
    met = []

    def noting(*given):
        for text in training_texts(*given):
            met.append(text)
            yield text

    monkeypatch.setattr(build, "training_texts", noting)
    built(docs, tmp_path / "out", "vocab_size=400")
    assert met == documents(400)[50:]
    met.clear()
    monkeypatch.setattr(build, "LEARNED_BYTES", 20_000)
    built(docs, tmp_path / "less", "vocab_size=400")
    assert 10_000 < sum(map(len, met)) < 30_000


def test_workers_change_nothing(docs, tmp_path):
    words = ("vocab_size=400", "transform=caseops")
    built(docs, tmp_path / "one", *words)
    code = f"{SMALL}\nfrom pgolf.data.streams import Kind\nassemble.TOKENS = Kind('.bin', '<u2', 1024, 7000)"
    finished(run_build(code, docs, tmp_path / "two", *words, "workers=2"))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def run_build(before: str, docs: Path, out: Path, *words: str) -> subprocess.Popen:
    asked = ["build", "mine", f"docs={docs}", f"out={out}", "val_docs=50", *words]
    code = (
        f"{before}\nfrom pgolf.data.__main__ import main\nif __name__ == '__main__': raise SystemExit(main({asked!r}))"
    )
    path = out.with_suffix(".py")
    path.write_text(code)
    return subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen, code: int = 0) -> str:
    """What it said on stderr, once it has ended with `code`."""
    said, wrong = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, (said, wrong)
    return wrong


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_build_goes_on_and_gives_the_same_bytes(docs, tmp_path, workers):
    built(docs, tmp_path / "whole", "vocab_size=400")
    words, out = (f"tokenizer={tmp_path}/whole/tokenizer.model", f"workers={workers}"), tmp_path / "out"
    code = f"{SMALL}\nfrom pgolf.data.streams import Kind\nassemble.TOKENS = Kind('.bin', '<u2', 1024, 7000)"
    note = tmp_path / ".out.building" / "state.json"
    process = run_build(code + SLOW, docs, out, *words)
    until(lambda: note.exists() and json.loads(note.read_text())["done"] >= 4, "four units are not noted")
    orphans = children(process.pid)
    process.send_signal(signal.SIGKILL)
    finished(process, -signal.SIGKILL)
    until_gone(orphans)
    done = json.loads(note.read_text())["done"]
    assert not out.exists()
    finished(run_build(code, docs, out, *words))
    assert 4 <= done < 30
    same = {k: v for k, v in digests(out).items() if k != MANIFEST}
    assert same == {k: v for k, v in digests(tmp_path / "whole").items() if k != MANIFEST}


def test_a_killed_worker_is_told_and_the_build_goes_on(docs, tmp_path):
    out = tmp_path / "out"
    process = run_build(SMALL + SLOW, docs, out, "vocab_size=400", "workers=2")
    note = tmp_path / ".out.building" / "state.json"
    until(note.exists, "no note of progress")
    for pid in children(process.pid):
        if b"spawn_main" in command_of(pid):
            os.kill(pid, signal.SIGKILL)
    said = finished(process, 2)
    assert "a worker was killed" in said
    assert "Traceback" not in said
    finished(run_build(SMALL, docs, out, "vocab_size=400", "workers=1"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_an_interrupt_is_never_a_workers_business(docs, tmp_path):
    process, looks = run_build(SMALL, docs, tmp_path / "out", "vocab_size=400", "workers=2"), 0
    while process.poll() is None:
        for pid in children(process.pid):
            looks += 1
            assert not hears(pid, signal.SIGINT), "between its start and its first work it would end with a stack"
    finished(process)
    assert looks > 50


def hears(pid: int, number: int) -> bool:
    """Whether this signal would do something to a process that is there."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    deaf = [int(mask, 16) >> (number - 1) & 1 for mask in re.findall(r"^Sig(?:Blk|Ign):\s*(\w+)", status, re.MULTILINE)]
    return len(deaf) == 2 and not any(deaf) and "Z (zombie)" not in status


def test_what_is_written_after_the_last_note_is_cut_off(tmp_path):
    kind = Kind(".bin", "<u2", 1024, 10)
    whole = Stream(tmp_path, "a", kind, 0)
    for i in range(0, 36, 4):
        whole.append(np.arange(i, i + 4))
    paths = whole.finish()
    assert [open_shard(path).tolist() for path in paths] == [list(range(i, min(i + 10, 36))) for i in range(0, 36, 10)]
    before = [path.read_bytes() for path in paths]
    again = Stream(tmp_path, "a", kind, 17)
    assert len(again.paths()) == 2
    again.append(np.arange(17, 36))
    assert [path.read_bytes() for path in again.finish()] == before


def test_two_builds_at_once_wait_for_each_other(docs, tmp_path):
    out = tmp_path / "out"
    both = [run_build(SMALL, docs, out.with_name("out"), "vocab_size=400", "workers=1") for _ in range(2)]
    for process in both:
        finished(process)
    assert not (tmp_path / ".out.building").exists()
    assert "lock" not in digests(out)


def test_a_second_builder_in_this_process_waits(tmp_path):
    seen, inside = [], threading.Event()

    def second() -> None:
        with build.locked(tmp_path / ".a.building", lambda *said: seen.append(said)):
            inside.set()

    with build.locked(tmp_path / ".a.building", quiet):
        thread = threading.Thread(target=second)
        thread.start()
        until(lambda: seen, "nothing is said")
        assert not inside.is_set()
    thread.join(30)
    assert inside.is_set()
    assert seen == [("waiting for another build of a", 0.0)]


def test_a_name_is_one_data_set(docs, tmp_path, capsys):
    built(docs, tmp_path / "out", "vocab_size=400")
    before = digests(tmp_path / "out")
    built(docs, tmp_path / "out", "vocab_size=400")
    assert digests(tmp_path / "out") == before
    words = ["build", "mine", f"docs={docs}", f"out={tmp_path}/out", "workers=1", "vocab_size=400"]
    capsys.readouterr()
    assert main([*words, "val_docs=50", "--json"]) == 0
    value = programs.said(capsys.readouterr().out, "pgolf.data.build", 0)
    assert value["splits"]["val"]["documents"] == 50
    assert value["use"] == ["data=built", f"data.folder={tmp_path}/out", "data.vocab_size=400"]
    assert main([*words, "val_docs=60", "--json"]) == 2
    assert "val_docs" in programs.refused(capsys.readouterr().out, 2)
    assert main(["build", "mine", f"docs={docs}", f"out={tmp_path}/out", "val_docs=60", "vocab_size=400"]) == 2
    assert "holds a data set with other val_docs" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    assert main(["build", "mine", f"docs={docs}", f"out={tmp_path}/other", "val_docs=50", "vocab_size=400"]) == 2
    assert "is there and is no data set" in capsys.readouterr().err


def test_an_unfinished_build_of_other_documents_is_not_thrown_away(docs, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    words = ["build", "mine", f"docs={docs}", f"out={tmp_path}/out", "val_docs=50"]
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "write", interrupt)
        assert main([*words, "vocab_size=400"]) == 130
    assert main([*words, "vocab_size=500"]) == 2
    assert "an unfinished build of other documents or parameters" in capsys.readouterr().err
    assert main([*words, "vocab_size=400"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "usage"),
        (["docs=a"], "usage"),
        (["a/b", "docs=DOCS", "vocab_size=400"], "a name is letters"),
        (["mine", "vocab_size=400"], r"docs=\.\.\. is missing"),
        (["mine", "docs=DOCS"], "give either tokenizer=FILE or vocab_size=N"),
        (["mine", "docs=DOCS", "b.jsonl", "vocab_size=400"], r"several files: docs='\[a,b\]'"),
        (["mine", "docs=DOCS", "vocabsize=400"], "Did you mean 'vocab_size'"),
        (["mine", "docs=DOCS", "vocab_size=4e2"], "vocab_size='4e2': must be a whole number"),
        (["mine", "docs=DOCS", "vocab_size=400", "val_docs=5", "val_fraction=.1"], "give one of val_docs"),
        (["mine", "docs=DOCS", "vocab_size=400", "val_fraction=5"], "must be above 0 and at most 0.5"),
        (["mine", "docs=DOCS", "vocab_size=400", "transform=upper"], "must be one of none, caseops"),
        (["mine", "docs=DOCS", "vocab_size=400", "transform=caseops", "byte_rule=table"], "must be sidecar"),
        (["mine", "docs=DOCS", "vocab_size=400"], "val_docs=50000: there are only 400 documents in all"),
        (
            ["mine", "docs=DOCS", "vocab_size=400", "val_docs=400"],
            "only 400 documents in all, and training needs some too",
        ),
        (
            ["fineweb_mine", "docs=DOCS", "vocab_size=400", "val_docs=10000"],
            "the challenge's 50,000 validation documents",
        ),
        (["mine", "docs=DOCS.none", "vocab_size=400"], "no such file"),
        (["mine", "docs=DOCS", "tokenizer=none.model"], "tokenizer .*none.model: no such file"),
    ],
)
def test_misuse(docs, words, told, capsys):
    assert main(["build", *(word.replace("DOCS", str(docs)) for word in words)]) == 2
    said = capsys.readouterr().err
    assert re.search(told, said)
    assert "Traceback" not in said


def test_a_fineweb_set_has_the_challenges_names(docs, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "CHALLENGE_DOCS", 50)
    words = (f"docs={docs}", f"out={tmp_path}/out", "vocab_size=400", "workers=1", "transform=caseops")
    assert main(["build", "fineweb_mine", *words]) == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*.bin"))
    assert names[0] == "fineweb_bytes_000000.bin"
    assert {name.rpartition("_")[0] for name in names} == {"fineweb_bytes", "fineweb_train", "fineweb_val"}


def test_empty_documents_do_not_make_validation_smaller(docs, tmp_path, capsys):
    lines = docs.read_text(encoding="utf-8").splitlines(keepends=True)
    docs.write_text("".join([*lines[:9], '{"text": " "}\n', *lines[9:]]), encoding="utf-8")
    assert main(["build", "mine", f"docs={docs}", f"out={tmp_path}/out", "val_docs=50", "vocab_size=400"]) == 2
    assert "val_docs=50: 1 of the first 50 documents are empty" in capsys.readouterr().err


def test_a_manifest_of_both_sides_is_refused(docs, tmp_path):
    manifest = built(docs, tmp_path / "out", "vocab_size=400")
    index = tmp_path / "out" / manifest.documents["train"].file
    rows = np.fromfile(index, ROW)
    rows[7]["sha256"] = manifest.index(tmp_path / "out", "val")[3]["sha256"]
    index.write_bytes(rows.tobytes())
    digest = hashlib.sha256(index.read_bytes()).hexdigest()
    manifest.documents["train"] = manifest.documents["train"].__class__(index.name, digest, len(rows))
    with pytest.raises(UserError, match="1 documents are in training and validation"):
        manifest.verify(tmp_path / "out")
    index.write_bytes(rows.tobytes()[:-1])
    with pytest.raises(UserError, match="but the manifest states 350 documents"):
        manifest.index(tmp_path / "out", "train")


def test_shards_of_another_tool_that_train_on_validation_are_refused(tmp_path, tiny_model):  # noqa: F811
    """By their tokens, wherever documents cross from a file to the next."""
    data = published(tmp_path, tiny_model)
    val = np.array(open_shard(tmp_path / "fineweb_val_000000.bin"))
    train = np.array(open_shard(tmp_path / "fineweb_train_000000.bin"))
    joined = np.concatenate([train, val[300:400], train[:100]])
    (tmp_path / "fineweb_train_000000.bin").write_bytes(shard_bytes(joined[:3050]))
    (tmp_path / "fineweb_train_000001.bin").write_bytes(shard_bytes(joined[3050:]))
    with pytest.raises(UserError, match=r"1 training documents of .* are validation documents too, of 15"):
        data.prepare(quiet)
    allowed = published(tmp_path, tiny_model, most_shared=1)
    (tmp_path / "fineweb_train_000000.bin").write_bytes(shard_bytes(joined[:3050]))
    (tmp_path / "fineweb_train_000001.bin").write_bytes(shard_bytes(joined[3050:]))
    assert allowed.prepare(quiet).manifest.dropped == {"shared_documents": 1}


def test_published_shards_with_a_sidecar(docs, tmp_path, lossy):  # noqa: F811
    """As the public CaseOps export lies in its repository: the sidecar's name begins like a validation shard's."""
    built(docs, tmp_path / "out", f"tokenizer={lossy}", "transform=caseops")
    folder = tmp_path / "export"
    folder.mkdir()
    for path in (tmp_path / "out").glob("*.bin"):
        name = path.name.replace("mine_bytes", "fineweb_val_bytes").replace("mine", "fineweb")
        (folder / name).write_bytes(path.read_bytes())
    original = sum(len(t.strip().encode()) for t in documents(400)[:50])
    targets = len(open_shard(folder / "fineweb_val_000000.bin")) - 1
    changes = dict(sidecar="fineweb_bytes", remote_sidecar="fineweb_val_bytes", transform="caseops", train_shards=9)
    changes |= dict(vocab_size=400, scored_tokens=(targets,), cache=str(tmp_path / "found"))
    plain = published(tmp_path / "unused", lossy.read_bytes(), **changes, scored_bytes=(original,))
    first = replace(plain, folder=str(folder))
    (folder / "tiny.model").write_bytes(lossy.read_bytes())
    prepared = first.prepare(quiet)
    assert prepared.validation.bytes == original
    assert first.prepare(lambda stage, done: pytest.fail(stage) if "proving" in stage else None) == prepared
    other = replace(first, scored_bytes=(original + 1,))
    with pytest.raises(UserError, match="published scores of tiny have"):
        other.prepare(quiet)
    (folder / "fineweb_val_bytes_000000.bin").unlink()
    with pytest.raises(UserError, match=r"no fineweb_bytes_\*\.bin there"):
        first.prepare(quiet)


def test_look_shows_a_table_json_and_a_page(docs, tmp_path, capsys):
    manifest = built(docs, tmp_path / "out", "vocab_size=400", "transform=caseops")
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["look", f"{tmp_path}/out", f"out={page}"]) == 0
    shown = capsys.readouterr().out
    assert f"{manifest.tokens('val'):,}" in shown
    assert shown.count("Document ") == 10
    assert manifest.text_sha256()[:16] in shown
    assert main(["look", f"{tmp_path}/out", "--json"]) == 0
    seen = programs.said(capsys.readouterr().out, "pgolf.data.look", 0)
    assert seen["splits"]["val"]["documents"] == 50
    assert seen["splits"]["train"]["bytes_per_token"] == manifest.bytes("train") / manifest.tokens("train")
    assert all(sample.startswith("Document ") for sample in seen["samples"])
    assert page.read_text().count("<svg") == 2


@pytest.mark.parametrize(("words", "told"), [([], "usage"), (["--help"], "usage"), (["nothing"], "neither a folder")])
def test_look_misuse(words, told, capsys):
    assert main(["look", *words]) == 2
    assert told in capsys.readouterr().err
    if "--help" not in words:
        assert main(["look", *words, "--json"]) == 2
        assert told in programs.refused(capsys.readouterr().out, 2)
