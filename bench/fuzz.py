"""Mutated frames among good ones, to both sessions and the row writer: ``python -m bench.fuzz --frames 100000``.

Real recorded frames are used besides generated ones where ``ARB_RECORDINGS`` names a folder of recordings. Exits with 1
if anything raised, a book was corrupted silently, or a refused frame was not counted.
"""

import argparse
import os
import sys
from pathlib import Path

from arb_pipeline_tests.fuzzing import fuzz


def main() -> int:
    """Run it and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--frames", type=int, default=100_000, help="mutated frames")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same run")
    options = parser.parse_args()
    recordings = os.environ.get("ARB_RECORDINGS")
    result = fuzz(options.frames, options.seed, Path(recordings) if recordings else None)
    print(result.table())
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
