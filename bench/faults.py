"""Every fault of the local exchange against a real capture of it: ``python -m bench.faults [SCENARIO ...]``.

Prints one line per fault and venue: detected and recovered in how many seconds of the capture's clock, messages lost
and those that no gap tells of, and whether other markets were left alone. Exits with 1 if the oracle objected.
"""

import argparse
import sys

from arb_pipeline_tests.capture.fault_matrix import SCENARIOS, can_mount, play_all, table


def main() -> int:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("scenario", nargs="*", help=f"those to play of {', '.join(SCENARIOS)}; none: all")
    chosen: list[str] = parser.parse_args().scenario or list(SCENARIOS)
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    left_out = [] if can_mount() else [name for name in chosen if SCENARIOS[name].mounts]
    results = []
    for result in play_all([name for name in chosen if name not in left_out]):
        results.append(result)
        sys.stderr.write(f"{len(results)} of {len(chosen)}: {result.scenario}\n")
    print(table(results))
    for name in left_out:
        print(f"{name}: left out, it takes the right to mount a file system (be root)")
    return 1 if any(result.findings for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
