"""A capture whose Postgres is killed again and again, and what both databases hold: ``python -m bench.postgres_kill``.

Exits with 1 if Postgres and the lake differ, a frame is missing, or capture paused while Postgres was away.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from arb_pipeline_tests.endurance import postgres_trial


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stops", type=int, default=10, help="how often to kill Postgres")
    parser.add_argument("--rate", type=float, default=5_000.0, help="frames per second over both venues")
    parser.add_argument("--seed", type=int, default=1, help="chooses moments and signals")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as folder:
        result = postgres_trial(
            Path(folder),
            stops=options.stops,
            rate=options.rate,
            seed=options.seed,
            say=lambda words: print(words, file=sys.stderr, flush=True),
        )
    print(result.table())
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
