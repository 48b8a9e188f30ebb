"""What a submission.json claims against a baseline: in which unit, and at which significance."""

from collections.abc import Iterator

from pgolf.audit.finding import Finding
from pgolf.audit.folder_json import Submission
from pgolf.results import stats


def check_claim(submission: Submission) -> Iterator[Finding]:
    """The unit of a stated gain, and a stated p against the one that its own seeds give."""
    number, scores = submission.number, submission.scores
    bpb, nats = (number(f"delta_vs_leaderboard_{unit}") for unit in ("bpb", "nats"))
    ratio = scores.nats_per_bpb if scores else None
    if ratio and bpb and nats is not None and abs(nats / bpb / ratio - 1) > 0.02:
        what = f"a gain of {bpb} bpb is {bpb * ratio:.5f} nats per token on this stream, not {nats}"
        where = submission.where("delta_vs_leaderboard_nats")
        yield Finding("mistake 31", "fail", where, what, "convert by val_loss / val_bpb")
    p, baseline = number("p_value"), number("comparison_baseline_bpb")
    if ratio and p is not None and baseline is not None and scores.sample.spread and scores.sample.std:
        again = stats.claim(scores.sample, stats.Sample(1, baseline, None), ratio).readings[0].one_sample_p
        if again is not None and p < stats.BAR_P <= again:
            what = f"p_value is {p}, but against {baseline} less 0.005 nats per token it is {again:.3g}"
            yield Finding(
                "mistake 31", "fail", submission.where("p_value"), what, "test against the bar, per token in nats"
            )
