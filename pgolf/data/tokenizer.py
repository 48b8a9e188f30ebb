"""Tokenizers learned from training text, which give every text back exactly, and what is asked of one that is given.

Measured on the standard library's validation split (1024 pieces; higher is better, in bytes per token): sentences cut at line
ends 2.38, with line ends kept 2.51, pieces free to cross words, scripts and line ends 2.65, and pieces of up to 32 characters
2.66.
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from pgolf.data.documents import SPACE_MARK
from pgolf.errors import ConfigError, UserError

SENTENCE_CHARACTERS = 1000
LONE_SPACE = re.compile(r"(?<=\S) (?=\S)")
SETTINGS = {
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "max_sentencepiece_length": 32,
    "max_sentence_length": 1 << 24,
    "character_coverage": 0.999,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": -1,
    "pad_id": -1,
    "num_threads": 2,
    "minloglevel": 2,
}

# Byte pairs may cross words. A unigram model begins with all substrings: free ones take it 6 times as long, for 1 % fewer tokens.
SPLIT_AT_WORDS = {"bpe": False, "unigram": True}


def train(texts: Iterable[str], vocab_size: int, model_type: str = "bpe", markers: str = "") -> bytes:
    """The model file of a tokenizer learned from `texts`, in which each of `markers` is a piece of its own.

    Raises ConfigError when the texts are too few for `vocab_size` pieces, and whatever `texts` raises.
    """
    model = io.BytesIO()
    stopped: list[BaseException] = []  # by what the texts end, which the trainer takes for a fault of its own

    def read() -> Iterator[str]:
        try:
            for text in texts:
                yield from sentences(text)
        except (Exception, KeyboardInterrupt) as wrong:
            stopped.append(wrong)
            raise

    symbols = {"user_defined_symbols": list(markers)} if markers else {}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=read(),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=model_type,
            split_by_whitespace=SPLIT_AT_WORDS[model_type],
            split_by_unicode_script=SPLIT_AT_WORDS[model_type],
            split_by_number=SPLIT_AT_WORDS[model_type],
            **SETTINGS,
            **symbols,
        )
    except RuntimeError as wrong:
        if stopped:
            raise stopped[0] from None
        reason = re.search(r"Vocabulary size .*", str(wrong)) or re.search(r".*\Z", str(wrong))
        allowed = f"cannot be learned from this training text: {reason.group().strip()}"
        raise ConfigError("data.vocab_size", vocab_size, allowed) from None
    return model.getvalue()


def sentences(text: str) -> Iterator[str]:
    """`text` in parts of about SENTENCE_CHARACTERS, cut at single spaces between words.

    The trainer puts a space before each part, which is the one that was cut out: its counts stay true to the text.
    """
    start = 0
    while len(text) - start > SENTENCE_CHARACTERS and (cut := LONE_SPACE.search(text, start + SENTENCE_CHARACTERS)):
        yield text[start : cut.start()]
        start = cut.end()
    yield text[start:]


def first_difference(text: str, back: str) -> str:
    """Where a text and its decoded tokens part, for a message."""
    at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
    return f"at character {at}, {text[at : at + 20]!r} came back as {back[at : at + 20]!r}"


def check_tokenizer(path: Path, vocab_size: int) -> None:
    """Refuse a tokenizer that cannot count bytes, or has another vocabulary than the configuration says."""
    sp = _opened(path)
    if sp.get_piece_size() != vocab_size:
        allowed = f"the tokenizer {path} has {sp.get_piece_size()} pieces; data.vocab_size must say so"
        raise ConfigError("data.vocab_size", vocab_size, allowed)
    if sp.id_to_piece(sp.piece_to_id(SPACE_MARK)) != SPACE_MARK:
        raise UserError(
            f"tokenizer {path}: {SPACE_MARK!r} is not a piece, so a lone space becomes three byte pieces and is counted as"
            f" 3 bytes. Train it with user_defined_symbols={SPACE_MARK!r}."
        )
    if sp.bos_id() < 0:
        raise UserError(f"tokenizer {path}: it has no BOS piece, so documents cannot be told apart")


def _opened(path: Path) -> sentencepiece.SentencePieceProcessor:
    if not path.is_file():
        raise UserError(f"tokenizer {path}: no such file")
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        raise UserError(f"tokenizer {path}: not a SentencePiece model") from None


def pieces(path: Path) -> int:
    """How many pieces a tokenizer has."""
    return _opened(path).get_piece_size()
