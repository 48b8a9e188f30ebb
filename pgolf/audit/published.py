"""Constants of the published validation split, and the ranges in which public records lie."""

STREAMS = {"SP1024": 1.6885, "SP4096": 2.3007, "SP8192": 2.5831, "SP8192 CaseOps": 2.1884}  # nats per bpb
TOKENS = {  # targets of the whole split, and of the crops that leave out an unfilled last sequence
    "SP1024": (62_021_632, 63_779_840),
    "SP4096": (45_508_608, 45_514_752, 45_516_800),
    "SP8192": (40_540_160, 40_546_304, 40_548_352),
    "SP8192 CaseOps": (47_851_520, 47_852_288, 47_853_343, 47_853_344),
}
CROP = 16_384  # targets by which a count may differ from those: what does not fill the longest last sequence
BYTES = (151.0e6, 151.2e6)  # of the whole split, in every stream
SHARDS = 195  # of training text that were published, at most
SHARD_TOKENS = 100_000_000
NEAR = 0.01  # by which a stream's nats per bpb may differ
SPREAD = 1e-3  # by which it may differ between the seeds of one submission
CAP = 16_000_000  # bytes of code and model
CLOCK = 600.0  # seconds of training, and again of evaluation
STEP = 1.0  # seconds by which the step that crosses the clock may pass it

GAIN = (-0.007, 0.034)  # bpb from the last flat score to the headline, over 43 accepted records
GAIN_ASKED = 0.05
SCORES = (1.0565, 1.2244)  # bpb of accepted ten-minute records
SCORE_ASKED = 1.0
STD = (0.0002, 0.0017)  # bpb between seeds of accepted records
STD_ASKED = (2e-5, 0.005)
GAP = (0.001, 0.02)  # bpb lost by quantising
GAP_ASKED = 0.04
SPEED = (0.7e6, 1.6e6)  # tokens of training per second and H100
SPEED_ASKED = 2.5e6
BYTES_PER_TOKEN = (1.0, 3.73)  # byte-level models to SP8192
BYTES_PER_TOKEN_ASKED = (0.98, 5.0)
PASSES = (0.1, 2.9)  # over the training text that was there
PASSES_ASKED = 4.0


def stream_of(tokens: int | None) -> str | None:
    """The stream whose whole split has this many targets. stream_of(40_540_160) == "SP8192" """
    near = (name for name, known in TOKENS.items() if tokens and any(abs(tokens - n) <= CROP for n in known))
    return next(near, None)
