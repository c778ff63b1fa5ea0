"""The exchange as a process: announces itself by one line of JSON, ends playback on SIGUSR1, and itself on SIGTERM."""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

from arb_pipeline.exchange import GeneratedSource, start
from arb_pipeline_tests.endurance.churn import Churn


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--rate", type=float, default=60.0)
    parser.add_argument("--log-frames", type=int, default=0)
    parser.add_argument("--per-minute", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--life-s", type=float, default=30.0)
    asyncio.run(_serve(parser.parse_args(arguments)))


async def _serve(given: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    base = GeneratedSource(given.seed, rate=given.rate)
    source = Churn(base, given.per_minute, given.minutes, life_s=given.life_s)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(source, "ended", True))
    async with await start(source, log_frames=given.log_frames) as exchange:
        sys.stdout.write(json.dumps(exchange.announcement()) + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()
