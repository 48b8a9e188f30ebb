"""The doctor: findings as they are, what to do where they are bad, and the exit code."""

import subprocess
import sys

import pytest

from pgolf import doctor
from pgolf.config.compose import rehearse
from pgolf.doctor import Finding
from pgolf.logger.key import has_key
from pgolf.machine import Device, Machine
from pgolf.machine.kernels import PlainKernels
from tests import programs
from tests.command import TINY, environment


@pytest.mark.slow
def test_this_machine_is_ready_and_its_speed_is_measured():
    command = [sys.executable, "-m", "pgolf.doctor", *TINY, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    value = programs.said(done.stdout, "pgolf.doctor", 0)
    found = {finding["what"]: finding["found"] for finding in value["findings"]}
    assert list(found) == [
        *("python", "torch", "GPUs", "attention", "cores", "memory", "disk", "W&B", "corpus", "speed")
    ]
    assert (value["ready"], value["words"]) == (True, list(TINY))
    assert "tokens/s on 1 rank(s): about" in found["speed"]
    assert "in 600 s (1,024 tokens each)" in found["speed"]
    assert [line.split()[1] for line in done.stderr.splitlines() if line.startswith("ok ")] == list(found), (
        "as they come"
    )


def test_what_is_bad_says_what_to_do_and_is_told_by_the_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(
        doctor, "findings", lambda words: iter([Finding("a", "well"), Finding("b", "ill", False, "cure it")])
    )
    assert doctor.main([]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok   a            well", "BAD  b            ill", f"{' ' * 18}→ cure it", "not ready: b: cure it",
    ]  # fmt: skip
    assert doctor.main(["--quiet"]) == 1
    assert capsys.readouterr().out == "not ready: b: cure it\n"
    assert doctor.main(["--json"]) == 1
    told = capsys.readouterr()
    value = programs.said(told.out, "pgolf.doctor", 1)
    assert value["findings"][1] == {"what": "b", "found": "ill", "ok": False, "do": "cure it"}
    assert told.err.startswith("ok   a")


def test_words_that_do_not_compose_are_one_message(capsys):
    assert doctor.main(["quant.bits=9"]) == 2
    assert capsys.readouterr().err.startswith("pgolf: quant.bits=9: must be between 2 and 8")
    assert doctor.main(["quant.bits=9", "--json"]) == 2
    assert programs.refused(capsys.readouterr().out, 2).startswith("quant.bits=9: must be between 2 and 8")


def test_an_old_python_little_memory_and_no_gpu_are_bad(monkeypatch):
    monkeypatch.setattr(doctor, "PYTHONS", ((3, 99), (3, 99)))
    monkeypatch.setattr(doctor, "MEMORY_GIB", 1 << 40)
    assert not doctor.python().ok
    assert "Python 3.99" in doctor.python().do
    assert not doctor.memory().ok
    machine = Machine(
        ranks=64, device=Device.CUDA, threads=None, micro_batch_tokens=None, compile=False, kernels=PlainKernels()
    )
    assert not doctor.gpus(machine).ok


def test_a_corpus_that_is_not_there_says_how_to_get_it(tmp_path):
    recipe = rehearse(["data=fineweb_sp1024", f"data.folder={tmp_path}"], sweep=False)[0].recipe
    corpus, finding = doctor.text(recipe)
    assert corpus is None
    assert not finding.ok
    assert "python -m pgolf.data fineweb_sp1024" in finding.found


def test_a_steps_time_leaves_out_the_first():
    class Ticking:
        """The first step takes 100 s, the others 1."""

        now, steps = 0.0, 0

        def step(self, progress):
            self.now += 100.0 if self.steps == 0 else 1.0
            self.steps += 1
            return self

        def item(self):
            return 0.0

    trainer = Ticking()
    assert doctor.step_seconds(trainer, 5.0, lambda: trainer.now) == 1.0
    assert trainer.steps == 6


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [("a", "machine api.wandb.ai login user password x", True), ("b", "machine example.org login u password x", False)],
)
def test_a_key_is_found_where_wandb_login_puts_it(monkeypatch, tmp_path, name, line, expected):
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / name))
    assert not has_key()
    (tmp_path / name).write_text(line + "\n")
    assert has_key() == expected
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert has_key()
