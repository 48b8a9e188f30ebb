"""Words as people type them: what Hydra gets to read, and what is said of those that mean something else."""

import doctest

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from pgolf.config import words
from pgolf.config.compose import register_experiments, rehearse
from pgolf.config.words import short_words
from pgolf.data import words as files
from pgolf.errors import UserError
from tests.command import run


@pytest.fixture(autouse=True, scope="module")
def ready():
    register_experiments()


def rehearsed(*typed: str, sweep: bool = False):
    return rehearse([short_words(word) for word in typed], sweep)


def test_examples_of_the_docstrings():
    assert doctest.testmod(words).failed == doctest.testmod(files).failed == 0


@pytest.mark.parametrize(
    ("typed", "seeds"),
    [
        ("seed=[1,2]", [1, 2]),
        ("seed=[ 1, 2 ]", [1, 2]),
        ("seed=[42]", [42]),
        ("seed=1,2", [1, 2]),
        ("seed=range(1,4)", [1, 2, 3]),
        ("seed=range(0,10,5)", [0, 5]),
        ("seed=choice(1,2)", [1, 2]),
        ("seed=sort(3,1,2)", [1, 2, 3]),
        ("seed=sort(1,2,reverse=true)", [2, 1]),
        ("seed=tag(mine,choice(4,5))", [4, 5]),
        ("seed.value=[1,2]", [1, 2]),
        ("seed.value=range(1,3)", [1, 2]),
        ("seed=three", [1337, 42, 7]),
    ],
)
def test_seeds_are_taken_in_every_spelling_of_a_sweep(typed, seeds):
    assert [job.recipe.seed.value for job in rehearsed(typed, sweep=True)] == seeds


def test_a_shuffled_list_of_seeds_is_the_same_seeds():
    assert sorted(job.recipe.seed.value for job in rehearsed("seed=shuffle(range(1,6))", sweep=True)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("typed", "arms"),
    [
        ("quant=glob(int5*)", ["int5_gptq", "int5_gptq_low_rank", "int5_gptq_prune2", "int5_round"]),
        ("quant=glob([int4*,none])", ["int4_gptq", "none"]),
        ("quant=glob(int5*,exclude=*g*)", ["int5_round"]),
        ("experiment=glob(quant_*)", ["quant_ablation"]),
    ],
)
def test_globs_name_options(typed, arms):
    key = typed.partition("=")[0]
    assert [job.arm for job in rehearsed(typed, sweep=True)] == [f"{key}={arm}" for arm in arms]


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("author.author=Zoë", "author.author", "Zoë"),
        ("author.author=O'Brien", "author.author", "O'Brien"),
        ("author.blurb=One, two = three; ~four (five) [six] {seven}", "author.blurb", None),
        ("author.github_id=007", "author.github_id", "007"),
        ("author.name=null", "author.name", None),
        ("author.author='as it is'", "author.author", "as it is"),
        ("author.base_pr=12", "author.base_pr", 12),
        ("name=2026_11_25", "name", "2026_11_25"),
        ("name=1e3", "name", "1e3"),
        ("name=true", "name", "true"),
        ("name=0x10", "name", "0x10"),
        ("name=my_run", "name", "my_run"),
        ("++name=7", "name", "7"),
    ],
)
def test_texts_stay_as_they_were_typed(typed, key, value):
    (job,) = rehearsed(typed)
    found = job.config["name"] if key == "name" else job.config["author"][key.partition(".")[2]]
    assert found == (typed.partition("=")[2] if value is None and "null" not in typed else value)


def test_other_values_are_quoted_only_where_they_must_be(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "é").mkdir()
    (tmp_path / "é" / "a.txt").write_text("A document.\n")
    (job,) = rehearsed("data=text", "data.files=~/é/*.txt", "data.name=2026_11")
    assert job.config["data"]["files"] == ["~/é/*.txt"]
    assert job.config["data"]["name"] == "2026_11"
    (job,) = rehearsed(
        "data=fineweb_sp1024", "data.folder=~/x=1/ö", "logger=wandb", "logger.project=1_0", "machine.ranks=8"
    )
    assert (job.config["data"]["folder"], job.config["logger"]["project"]) == ("~/x=1/ö", "1_0")
    assert short_words("quant.bits=5,6") == "quant.bits=5,6"
    assert short_words("model.xs=[1,2]") == "model.xs=[1,2]"
    assert short_words("~quant.fit") == "~quant.fit"
    assert short_words("quant/solver/source=null") == "quant.solver.source=null"
    assert short_words("hydra/launcher=null") == "hydra/launcher=null"
    assert short_words("--config-dir=é") == "--config-dir=é"


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1))
def test_every_text_reaches_its_key_unchanged(text):
    text = text.strip()
    if not text or text in ("null", "???") or "${" in text or (text[0] == text[-1] and text[0] in "'\""):
        return
    (word,) = OverridesParser.create().parse_overrides([short_words(f"author.blurb={text}")])
    assert word.value() == text


@pytest.mark.parametrize(
    ("typed", "sweep", "told"),
    [
        ("seed=[1,2]", False, "several values are a sweep: python -m pgolf.run -m"),
        ("quant=int5_gptq,int6_gptq", False, "several values are a sweep: python -m pgolf.run -m"),
        ("model.value_embedding.layers=1,2", False, "or write one list: 'model.value_embedding.layers=[...]'"),
        ("quant=glob(int5*)", False, "several values are a sweep"),
        ("quant=glob(zz*)", True, "quant=glob(zz*): names nothing to sweep over"),
        ("seed=range(3,3)", True, "names nothing to sweep over"),
        ("seed=[]", True, "seed.value=[]: "),
        ("seed=[[1,2]]", True, "seed.value=[[1, 2]]: "),
        ("seed=[1.5]", True, "seed.value=1.5: "),
        ("seed=[one]", True, "seed.value='one': "),
        ("seed=1,1", True, "are the same run"),
        ("optim.matrix.lr=interval(0.01,0.1)", True, "python -m pgolf.search 'optim.matrix.lr=interval(0.01,0.1)'"),
        ("optim.matrix.lr=tag(log,interval(0.01,0.1))", False, "an interval is searched and not swept"),
        ("seed=interval(1,3)", True, "an interval is searched and not swept"),
        ("quant.bits=[5", False, "quant.bits='[5': "),
        ("quant.bits=fünf", False, "quant.bits='fünf': "),
        ("trained=runs/a=1", False, "runs/a=1/record.json: cannot be read"),
        ("trained=2026_11_25", False, "2026_11_25/record.json: cannot be read"),
        ("name=null", False, "name=None: must be letters"),
        ("name=Zoë", False, "name='Zoë': must be letters"),
        ("größe=1", False, "größe=1: cannot be read; write group=option"),
        ("quant", False, "quant: cannot be read; write group=option"),
    ],
)
def test_what_cannot_be_meant_is_one_message(typed, sweep, told):
    with pytest.raises(UserError) as wrong:
        rehearsed(typed, sweep=sweep)
    assert told in str(wrong.value)
    assert "\n" not in str(wrong.value)


@pytest.mark.slow
def test_the_command_line_takes_them(tmp_path):
    done = run(tmp_path, "-m", "seed=[1,2]", "quant=glob(int5_r*)", "author.author=Zoë", "name=2026_11", "dry=true")
    assert "2026_11  arm quant=int5_round  seed 1, 2\n" in done.stdout
    for words_, told in (
        (("hydra.mode=MULTIRUN", "seed=1,9"), "seed=1,1"),
        (("-m", "seed=interval(1,3)"), "pgolf.search"),
    ):
        code = 0 if told.startswith("seed") else 2
        done = run(tmp_path, *words_, "dry=true", code=code)
        assert ("seed 1, 9" in done.stdout) if code == 0 else (told in done.stderr and "Traceback" not in done.stderr)
