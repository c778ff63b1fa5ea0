"""A capture killed again and again, and what is in its tables all the same: ``python -m bench.kill --kills 20``.

Exits with 1 if a frame that was due is missing or there twice, a table cannot be read, an outage is in no gap, or a
book is not the exchange's.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from arb_pipeline_tests.endurance import kill_trial


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=20, help="how often to kill it")
    parser.add_argument("--rate", type=float, default=2_000.0, help="frames per second over both venues")
    parser.add_argument("--flush-ms", type=float, default=100.0, help="ARB_FLUSH_MS of the capture")
    parser.add_argument("--seed", type=int, default=1, help="chooses moments and targets")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-kill-") as folder:
        result = kill_trial(
            Path(folder),
            kills=options.kills,
            rate=options.rate,
            flush_ms=options.flush_ms,
            seed=options.seed,
            say=lambda words: print(words, file=sys.stderr, flush=True),
        )
    print(result.table())
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
