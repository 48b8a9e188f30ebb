"""The grammar of public training logs, a line at a time: words with figures, in whatever spelling and order.

`facts` takes a line apart into what it states; it keeps nothing, and what it does not recognise it leaves out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

NUMBER = r"\d[\d,_]*(?:\.\d+)?(?:e[-+]?\d+)?"
SAYS = r"[\"'*`)\]]*\s*(?:[:=|≈]|->|→|\bis\b|\bof\b)*\s*[\"'*`(]*\s*"  # what may stand between a word and its figure
COLOUR = re.compile(r"\x1b\[[\d;]*m")
STAMP = re.compile(  # times, ranks and log levels before what a line says
    r"^(?:\s*\[?\d{4}-\d\d-\d\d[T ][\d:.,]+Z?(?:[+-]\d\d:?\d\d)?\]?|\s*\[?\d{1,2}:\d\d:\d\d(?:[.,]\d+)?\]?"
    r"|\s*\[?rank ?\d+\]?:"
    r"|\s*\[?(?:INFO|DEBUG|WARNING)\]?[: ]|\s*\[\d+\.\d+ ?s\]|\s*\[time\]|\s*[|>#*-]+(?=\s))*\s*"
)
STEP = re.compile(r"(?i)^\W*(?:(?:step|iter(?:ation)?|it)\W{0,3}(\d+)\b|(\d+)/\d+\s)")
RUNNING = re.compile(  # scores on the way through the text, or of an epoch
    r"(?i)chunk\W{0,3}\d|chunks? done|\bttp\w?:|\b(?:batch|window|doc|seq)\w*\W{0,3}\d+ ?/ ?\d+|\[\s*\d+/\d+\]"
    r"|\d+ ?/ ?\d+ (?:windows|chunks|batches|docs|seqs|documents)"
    r"|\d+(?:\.\d+)? ?%|\brunning|progress|(?<![a-z])ep(?:och)?s?\W{0,3}\d+(?: ?/|\W)|\bprefix\b|\bcumul|\bblock\W{0,2}\d+/"
)
KEYED = re.compile(
    rf"(?i)(?P<key>[\w/.-]*(?:bpb|bits[_ ]per[_ ]byte))(?P<exact>_exact)?(?:\s*\((?:exact|mean)\))?{SAYS}(?P<value>\d+\.\d+)"
)
LOSS = re.compile(
    rf"(?i)(?P<key>\bval(?:idation)?[_ ]?(?:loss|nll)|(?<!train_)(?<!train )\b(?:loss|nll)){SAYS}(?P<value>\d+\.\d+)"
)
ASIDE = re.compile(
    r"(?i)delta|gain|std|improv|diff|baseline|target|best_so_far|previous|sota|threshold|_min|_max|only|nn_|record"
)
SECONDS = re.compile(
    rf"(?i)\b(?P<key>[\w-]*time|elapsed|took|in|wall\w*|total)(?:_s|_ms|_sec)?{SAYS}(?P<value>{NUMBER}) ?"
    r"(?P<unit>ms|seconds|secs?|s|minutes|min|m)\b"
)
UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minutes": 60.0}
TRAINED = re.compile(
    r"(?i)\b(?:train(?:ing)?_?[ ]?time|trained\b.*? in|training (?:completed?|finished|done|took)\b(?:.*? in)?)(?:_ms|_s)?"
    rf"{SAYS}({NUMBER}) ?(ms|seconds|sec|s)\b"
)
EVALUATED = re.compile(
    rf"(?i)^(?:evaluated\b.*? in|total[_ ]eval(?:uation)?[_ ]time){SAYS}({NUMBER}) ?(ms|seconds|sec|s)\b"
)
CALIBRATES = re.compile(r"(?i)calibrat|hessian|\bawq\b|gptq\W{0,3}(?:collect|generat|sampl)|self.?gen")
READS_NOTHING = re.compile(r"(?i)self.?gen|generat|autoregress|\bar\b|random tokens|synthetic|no data")
SIZE = re.compile(r"(?i)(?P<what>[a-z][\w+ /.()\-]*?)\s*[:=]\s*(?P<n>\d[\d,_]*)(?:\s*(?:bytes|b)\b)?")
CODE_CHAIN = re.compile(r"(?i)^code(?: size)?:? *\d[\d,]* .*?(?:->|→|=>)")
INTEGERS = {
    "seed": re.compile(r"(?i)(?:^|[\s,{(\"'|_-])(?<!data_)(?<!calib_)seed[\"']?\s*[:= ]\s*(\d{1,10})\b"),
    "world": re.compile(r"(?i)\bworld_size[:= ]+(\d+)|\bws:(\d+)|, (\d+) rank\(s\)|nproc_per_node[= ](\d+)"),
    "batch": re.compile(r"(?i)\b(?:train_batch_tokens|batch_tokens|total_batch_size|batch)[:= ]+(\d{5,})"),
    "shards": re.compile(r"(?i)\btrain[_ ]shards[:= ]+(\d+)"),
    "tokens": re.compile(
        r"(?i)^val(?:idation)?[_ ]tokens[:= ]+(\d[\d,_]*)|^val_loader\b.*\btokens[:= ]+(\d[\d,_]*)|^evaluated (\d[\d,]*) tokens"
    ),
    "bytes": re.compile(r"^evaluated [\d,]+ tokens, (\d[\d,]*) bytes"),
    "cap": re.compile(r"\bcap=(\d+)"),
}  # fmt: skip
SUBSET = re.compile(
    rf"(?i)\bsubset\w*{SAYS}({NUMBER}) ?(?:tokens|docs|documents)?|\b(?:first|only) ({NUMBER}) (?:val\w* )?tokens"
)
OWN_TOKENS = re.compile(r"(?i)\b(?:tokens|scored)[:= ]+(\d[\d,_]*)")
OWN_BYTES = re.compile(r"(?i)\bbytes[:= ]+(\d[\d,_]*)")
EPOCH = re.compile(r"(?i)(?<![a-z])ep(?:och)?\W{0,3}(\d+) ?(?:/|of) ?(\d+)")
ADAPTS = re.compile(
    r"(?i)ttt|test.?time|adapt|val\w*[_ ](?:ft|fine)|fine.?tun\w* (?:on )?val|pre_?-?quant|train\w* on val"
)
ADAPTED = re.compile(r"(?i)\bdone\b|finished|complete|total_time")
UNTIMED = re.compile(r"(?i)compil|warm")
TRAINING_TEXT = re.compile(r"(?i)burst|train(?:ing)?[_ ](?:data|text|shard|set|tok)|replay|distill")
INDEXED = re.compile(r"\[\d+(?:/\d+)?\]")
NEGATED = re.compile(r"(?i:\bno\b|\bnot\b|never|without|disabled|false|off\b|skip)")
OTHER_PASS = re.compile(rf"{NEGATED.pattern}|(?i:compress|lrzip|quant|gptq|warm|compil|clip|pack|train)")
TWO_PASS = re.compile(
    r"(?i)\b(?:two|2)[-_ ]?pass|\bpass[ _:=#]*(?:2|two)\b(?! ?/)|\bsecond pass|\bre-?scor(?:e|ed|ing)\b"
)
SCORES = re.compile(r"(?i)score|bpb|n-?gram|cache|eval|done|val\b|nll")
CHOSEN = re.compile(
    r"(?i)^best_averaging\W|\b(?:chose|choosing|selected|picked|using best)\b.*\b(?:val_bpb|val_loss|validation)\b"
)
CALIBRATES_ON_VALIDATION = re.compile(
    r"(?i)(?:gptq|calib|hessian)\w*\b.*\b(?:on|with|from|using)\b[^;,.]{0,20}\bval(?:idation)?\b(?!_)"
)
TRACEBACK = re.compile(
    r"^Traceback \(most recent call last\)|^(?:torch\.)?(?:cuda\.)?OutOfMemoryError|^Segmentation fault"
)
VERSION = re.compile(r"(?i)\b(?:py)?torch(?:\.__version__|_version)?[ =:v]+\d+\.\d+")
VOCABULARY = re.compile(r"(?i)sp_?(\d+)(?!\d)")
ODD_TEXT = re.compile(r"(?i)case_?fold|lower_?cas|byte[-_ ]?level|byte260|bytes?_vocab|utf-?8 bytes")
GPU = re.compile(r"\b(H100|H200|A100|B200|L40S?|RTX ?\d{4}|A6000|MI300X)\b")


@dataclass(frozen=True)
class Score:
    """A score that a line states: `label` what stands before it, nats per token and seconds where they are there, and the
    tokens and bytes that the line itself says it is over. `decimals` of the bpb."""

    label: str
    bpb: float
    decimals: int
    loss: float | None
    loss_decimals: int
    seconds: float | None
    tokens: int | None
    bytes: int | None


def bare(line: str) -> str:
    """The line without colours, time and rank in front. bare("[12:00:01] rank0: step:1") == "step:1" """
    content = COLOUR.sub("", line) if "\x1b" in line else line
    return content[STAMP.match(content).end() :].rstrip()


def number(text: str) -> float | int:
    """number("1,234") == 1234, number("1.5e2") == 150.0; never more than 1e18."""
    clean = text.replace(",", "").replace("_", "")
    return min(float(clean), 1e18) if "." in clean or "e" in clean.lower() else int(clean[:18])


def seconds(found: re.Match) -> float:
    """A pattern's two groups, figure and unit, in seconds."""
    value, unit = found.groups()[-2:]
    return round(float(number(value)) * UNITS[unit.lower()], 6)


def duration(text: str, keys: str = r"(?i)eval\w*time|elapsed|time|took|^in$") -> float | None:
    """Seconds that a line says something took; the finest unit where there are two."""
    found = [m for m in SECONDS.finditer(text) if re.search(keys, m["key"])]
    return min((round(float(number(m["value"])) * UNITS[m["unit"].lower()], 6) for m in found), default=None)


def scores(text: str) -> Iterator[Score]:
    """Every score of a line that is an end result by its wording, for lines that are neither steps nor on the way."""
    loss = next((m for m in LOSS.finditer(text) if "val" in m["key"].lower()), None) or LOSS.search(text)
    own = [pattern.search(text) for pattern in (OWN_TOKENS, OWN_BYTES)]
    tokens, weight = (int(number(m[1])) if m else None for m in own)
    first = True
    for found in KEYED.finditer(text):
        key = found["key"].lower().strip("_-./")
        if ASIDE.search(key):
            continue
        before = text[: min(found.start(), loss.start() if loss else found.start())]
        label = re.sub(r"(?i)_exact$|:done$|[ (:]+exact\)?$", "", before.strip(" :,-|=\t").strip())
        label = " ".join(w for w in label.split() if not re.search(r"[=:]\d|^\d", w))
        label = " ".join(w for w in (label, "" if key in ("val_bpb", "bpb") else key) if w) or "val_bpb"
        nats = loss if first else None
        digits = [len(m["value"].partition(".")[2]) if m else 0 for m in (found, nats)]
        yield Score(
            label,
            float(found["value"]),
            digits[0],
            nats and float(nats["value"]),
            digits[1],
            duration(text),
            tokens,
            weight,
        )
        first = False


def stream(text: str) -> str | None:
    """The token stream that a line about validation files names. "…/fineweb10B_sp8192/fineweb_val_*.bin": "SP8192" """
    for word in text.split():
        found = VOCABULARY.search(word)
        if found and "fineweb" in word and ("val" in word or "validation tokens" in text):
            return f"SP{found[1]}" + (" CaseOps" if "caseops" in word.lower() else "")
    return None


def size(text: str) -> tuple[str, str, int] | None:
    """(kind, how it is qualified, bytes) of a line that states a size: kind is code, model or total.

    size("Total submission size int6+lzma: 15876510 bytes") == ("total", "int6+lzma", 15876510)"""
    found = SIZE.match(text)
    if found is None or not re.search(r"(?i)bytes|size|\bB\b", text):
        return None
    what, n = found["what"].lower(), int(number(found["n"]))
    if re.search(
        r"limit|budget|cap\b|headroom|margin|remain|payload|vocab|batch|params|raw|free|unprun|target", what
    ) or (n < 1000 and "code" not in what):
        return None
    qualified = re.sub(
        r"(?:total|submission|serialized|model|code|size|bytes|artifact|compressed by|\s)+", " ", what
    ).strip(" ()_")
    if "code" in what and not re.search(r"\+|total|with code|and code", what):
        return "code", re.search(r"compressed|uncompressed|minif\w*|packed|wrapper|raw|", what)[0] or qualified, n
    if re.search(r"total|submission|artifact", what):
        return "total", qualified, n
    if re.search(r"serialized|compressed|quantized|model|weights|\.ptz", what):
        return ("model", qualified, n) if qualified or what.strip() != "serialized model" else ("raw", "", n)
    return None


def epoch(text: str) -> tuple[int, int] | None:
    """(epoch, of how many) of a line about adapting that is neither of one chunk nor about training text."""
    found = EPOCH.search(text)
    if not found or not ADAPTS.search(text) or TRAINING_TEXT.search(text) or INDEXED.search(text):
        return None
    return int(found[1]), int(found[2])
