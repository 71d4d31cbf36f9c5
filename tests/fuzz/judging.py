"""``python -m tests.fuzz.judging FIRST LAST``: judges mutants as the folder and the API do, under a memory limit."""

from __future__ import annotations

import faulthandler
import json
import resource
import sys
import time
from collections import Counter

from station.picture import decode, look, refusal
from tests.fuzz.mutants import mutant, seeds

LIMIT_BYTES = 1_500_000_000
MAX_PIXELS = 2_000_000


def main(first: int, last: int) -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    whole = seeds()
    for _, data in whole:
        assert decode(data) is not None  # a seed that is refused would test nothing
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    came: Counter[str] = Counter()
    slowest_s = 0.0
    for number in range(first, last):
        kind, data = mutant(whole, number)
        sys.stderr.write(f"{number}\n")  # who reads it knows where it crashed
        began_s = time.thread_time()
        found = look(data)
        if found.kind is None or found.flaw is not None:
            came[f"{kind}: refused before decoding"] += 1
        elif refusal(found, max_pixels=MAX_PIXELS) is not None:
            came[f"{kind}: too large or odd"] += 1
        else:
            image = decode(data)
            came[f"{kind}: {'the decoder refuses' if image is None else 'decoded'}"] += 1
            assert image is None or image.shape[0] * image.shape[1] <= MAX_PIXELS
        slowest_s = max(slowest_s, time.thread_time() - began_s)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    sys.stdout.write(
        json.dumps({"came": came, "slowest_s": round(slowest_s, 3), "more_memory_mb": round(peak_kb / 1024, 1)})
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
