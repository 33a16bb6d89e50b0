"""How long a pass takes."""

from .cases import BATCHES, CASES, PASSES, compiled


class Speed:
    """Seconds of one call of a compiled kernel, with a new output every time.

    The same tensors again and again: those of a batch of 1 come from a cache, those of a batch of 16
    (3 to 50 MB) from what the processor has of one. How near that is to the memory's limit: `traffic`.
    """

    version = "1"
    params = (list(CASES), list(PASSES), list(BATCHES))
    param_names = ("case", "pass", "batch")

    # `asv continuous` says "changed" where its Mann-Whitney test has p < 0.002. Of n against n samples
    # the smallest p there can be is 2 / C(2n, n): 0.00216 for 6, which never suffices, 0.00058 for 7.
    # Here 4 rounds, each a process of its own in turn with the other commit's (--interleave-rounds),
    # take at least 4 samples each: 16 against 16, which do not have to be apart in every single pair.
    rounds = 4
    repeat = (4, 8, 0.1)  # samples at least, at most, and the seconds after which there are no more
    warmup_time = 0.02
    timeout = 120

    def setup(self, case: str, pass_: str, batch: int) -> None:
        self.number = 20 if batch == 1 else 1
        self.run = compiled(case, batch, pass_)

    def time_pass(self, case: str, pass_: str, batch: int) -> None:
        self.run()
