"""Torments two stations and their broker by the dice of a seed, and says which promises were broken."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=2.0, help="at least; until each fault has struck (%(default)g)"
    )
    parser.add_argument("--seed", type=int, help="the same faults again; default: others each time")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder for all files; default: deleted")
    arguments = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"the same again: scripts/chaos --minutes {arguments.minutes:g} --seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="station-chaos-") as folder:
        outcome = run(
            arguments.keep or Path(folder),
            minutes=arguments.minutes,
            seed=seed,
            say=lambda text: print(text, file=sys.stderr, flush=True),
        )
    print(outcome)
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
