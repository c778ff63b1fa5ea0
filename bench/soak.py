"""A long capture with markets that come and go, its memory and its queues: ``python -m bench.soak --minutes 30``.

Exits with 1 if memory or a queue grows, a frame is lost, or a book is not the exchange's. Needs about 2 GB of disk for
ten minutes at 5,000 frames a second.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from arb_pipeline_tests.endurance import soak


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long")
    parser.add_argument("--rate", type=float, default=5_000.0, help="frames per second over both venues")
    parser.add_argument("--churn", type=int, default=100, help="markets opened, and closed, each minute")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-soak-") as folder:
        result = soak(
            Path(folder),
            seconds=60 * options.minutes,
            rate=options.rate,
            per_minute=options.churn,
            say=lambda words: print(words, file=sys.stderr, flush=True),
        )
    print(result.table())
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
