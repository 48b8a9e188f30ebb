"""Folders that are broken or meant to harm: nothing in them is run, none crashes the auditor, all are read within bounds."""

import io
import json
import os
import pickle
import random
import socket
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from pgolf.audit.__main__ import main
from pgolf.audit.bounded import listed, plain, text_of
from pgolf.audit.finding import overall
from pgolf.audit.folder import audit_folder
from pgolf.audit.python_text import parsed
from pgolf.audit.report import long, plain_values, short
from pgolf.config.command import Result
from tests.audit_cases import CASES, write
from tests.audit_cases.folders import folder

ESCAPE = "\x1b[2J\x1b]0;gone\x07"


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_is_run_imported_or_unpickled(tmp_path):
    on_nll = tmp_path / "ran"
    touch = f"open({str(on_nll)!r}, 'w')\n"
    files = folder(script=touch + "import evil\n") | {"evil.py": touch, "conftest.py": touch, "sitecustomize.py": touch}
    files |= {"model.pkl": pickle.dumps(Bomb(str(on_nll))), "final_model.pt": pickle.dumps(Bomb(str(on_nll)))}
    audit_folder(write(files, tmp_path / "f"))
    assert not on_nll.exists()


def test_only_a_json(tmp_path):
    found = audit_folder(write({"submission.json": "{}"}, tmp_path))
    assert overall(found).startswith("fail (")


def test_json_of_depth_10000(tmp_path):
    for text in (
        "[" * 10_000,
        '{"seeds": ' * 10_000,
        '{"a":' * 800 + "1" + "}" * 800,
        '{"val_bpb": ' + "9" * 5000 + "}",
    ):
        assert overall(audit_folder(write(folder() | {"submission.json": text}, tmp_path))).startswith("fail (")


def test_a_log_without_newlines_and_with_nul_bytes(tmp_path):
    made = folder()
    made["train_seed42.log"] = made["train_seed42.log"].replace("\n", "\0\n")
    made["train_seed7.log"] = "step:1/2 val_bpb:1.1 " * 200_000
    began = time.monotonic()
    found = audit_folder(write(made, tmp_path))
    assert [f for f in found if f.where.startswith("train_seed42")] == []
    assert time.monotonic() - began < 20


def test_a_log_of_two_gigabytes_is_read_at_its_ends(tmp_path):
    write(folder(), tmp_path)
    path = tmp_path / "train_seed42.log"
    text = path.read_bytes()
    with open(path, "r+b") as file:
        file.write(text[:300] + b"\n")
        file.seek(2 << 30)  # a hole, which takes no room
        file.write(b"\n" + text[300:])
    began = time.monotonic()
    found = audit_folder(tmp_path)
    assert any("bytes in its middle were not read" in f.what for f in found)
    assert time.monotonic() - began < 60


def test_links_devices_and_pipes_are_not_opened(tmp_path):
    inside = write(folder(), tmp_path / "f")
    (inside / "loop").symlink_to(inside, target_is_directory=True)
    (inside / "train_seed7.log").symlink_to("/dev/zero")
    (inside / "self.log").symlink_to("self.log")
    os.mkfifo(inside / "train_seed8.log")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.path.relpath(inside / "socket.log"))
        found = audit_folder(inside)
    refused = {f.where for f in found if f.rule == "folder"}
    assert listed(inside).refused == ("loop", "self.log", "socket.log", "train_seed7.log", "train_seed8.log")
    assert refused
    assert overall(found) == "consistent"


def test_a_zip_bomb_and_a_bomb_in_a_wrapper(tmp_path):
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("big", bytes(50_000_000))
    bomb = zlib.compress(zlib.compress(b"#" * 200_000_000, 9), 9)
    script = f"import zlib\nexec(zlib.decompress(zlib.decompress({bomb!r})))\n"
    began = time.monotonic()
    audit_folder(write(folder(script=script) | {"model.zip": zipped.getvalue()}, tmp_path))
    assert time.monotonic() - began < 30


DEEP = {
    "brackets": "x = " + "(" * 5000 + ")" * 5000,
    "open brackets": "x = " + "(" * 5000,
    "attributes": "x = " + "a." * 20_000 + "a",
    "calls": "x = a" + "()" * 20_000,
    "minuses": "x = " + "-" * 20_000 + "1",
    "nots": "x = " + "not " * 20_000 + "1",
    "sums": "x = " + "1 + " * 20_000 + "1",
    "lambdas": "x = " + "lambda: " * 20_000 + "1",
    "branches": "if a:\n    pass\n" + "elif a:\n    pass\n" * 20_000,
    "indents": "".join(" " * i + "if a:\n" for i in range(900)),
    "f-strings": 'x = f"{' * 300 + "1" + '}"' * 300,
}


@pytest.mark.parametrize("kind", DEEP)
@pytest.mark.parametrize("after", ["", 'x = f"{", ".join(a)}"\n', "import requests\n)\n"])
def test_deep_code_ends_no_process(kind, after):
    """libcst's parser has no bound on its depth: it must not be given such text."""
    parsed(f"{DEEP[kind]}\n{after}")


def test_names_and_texts_are_shown_without_what_a_terminal_obeys(tmp_path, capsys):
    made = folder(changes={"val_bpb": 1.2, "author": ...}) | {
        f"train_seed5{ESCAPE}.log": "step:1/2\n",
        f"a{ESCAPE}.py": "x = 1\n",
    }
    made["train_gpt.py"] = f"import subprocess\nsubprocess.run(['{ESCAPE}'])\n"
    path = write(made, tmp_path / f"folder{ESCAPE}")
    for words in (
        [str(path)],
        [str(path), "--long"],
        [str(path), "--json"],
        ["--all", str(tmp_path), "--page", str(tmp_path / "p.html")],
    ):
        assert main(words) == 1
        told = capsys.readouterr()
        assert not set(told.out + told.err) & {"\x1b", "\x07"}
    assert not set((tmp_path / "p.html").read_text()) & {"\x1b", "\x07"}
    assert main([str(path / f"no{ESCAPE}")]) == 2
    assert "\x1b" not in capsys.readouterr().err
    assert plain("a\x1b[0m\u202e\udcff") == "a\\x1b[0m\\u202e\\udcff"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "latin-1"])
def test_any_encoding_is_text(tmp_path, encoding):
    path = tmp_path / "a.log"
    path.write_bytes("step:1/2 é\r\nseed:42\r\n".encode(encoding))
    assert text_of(path).lines[1] == "seed:42"


@pytest.mark.parametrize(
    "line",
    ["val_tokens: ,", "val_loader: tokens:_", "evaluated , tokens", "tokens:1e999 val_bpb:1.1", "seed:" + "9" * 5000],
)
def test_figures_that_are_none_are_left_out(tmp_path, line):
    audit_folder(
        write(
            {"train.log": f"step:1/2 val_loss:1.1 val_bpb:1.1\n{line}\nfinal val_loss:2.1 val_bpb:1.1 {line}\n"},
            tmp_path,
        )
    )


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A few bytes or lines of a file changed, dropped, repeated or exchanged."""
    for _ in range(dice.randint(1, 6)):
        at, to = sorted((dice.randint(0, len(data)), dice.randint(0, len(data))))
        how = dice.randrange(7)
        if how == 0:
            data = data[:at] + bytes(dice.randrange(256) for _ in range(dice.randint(1, 8))) + data[at:]
        elif how == 1:
            data = data[:at] + data[to:]
        elif how == 2:
            data = data[:to] + data[at:to] + data[to:]
        elif how == 3:
            data = (
                data[:at]
                + dice.choice(
                    [b"NaN", b"-1", b"0", b"1e999", b"null", b"{", b"]", b'"', b"\n", b"9" * 40, b"seed:", b"f'{"]
                )
                + data[at:]
            )
        elif how == 4:
            data = data[:at]
        elif how == 5:
            lines = data.split(b"\n")
            dice.shuffle(lines)
            data = b"\n".join(lines)
        else:
            data = data.replace(
                dice.choice([b"1", b":", b" ", b'"', b"\n", b"val", b"bytes"]),
                dice.choice([b"", b"0", b"=", b"\xff", b"\0"]),
            )
    return data[: 1 << 20]


def audits_of_mutated_folders(count: int, root: Path, seed: int) -> None:
    dice = random.Random(seed)
    made = [case.files() for case in CASES]
    for i in range(count):
        files = dict(dice.choice(made))
        for name in dice.sample(sorted(files), dice.randint(1, len(files))):
            data = files[name]
            files[name] = mutated(data.encode() if isinstance(data, str) else data, dice)
        path = write(files, root / f"m{i}")
        found = audit_folder(path)
        told = "\n".join([*short(found), *long(found)])
        assert all(c.isprintable() or c == "\n" for c in told), i
        json.loads(Result("pgolf.audit/1", plain_values(str(path), found), "").json())
        for file in sorted(path.rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()


def test_mutated_folders_give_no_crash(tmp_path):
    audits_of_mutated_folders(100, tmp_path, seed=16)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_20000_mutated_folders_give_no_crash(tmp_path, seed):
    audits_of_mutated_folders(2000, tmp_path, seed)
