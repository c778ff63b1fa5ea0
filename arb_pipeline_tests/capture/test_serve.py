import os
import signal
import subprocess
import sys
import threading

import pytest

from arb_pipeline.capture.serve import run_until_signalled

SCRIPT = """
import asyncio, sys
from arb_pipeline.capture.serve import run_until_signalled

async def work(stop):
    print("ready", flush=True)
    await stop.wait()
    if sys.argv[1] == "stubborn":
        print("stopping", flush=True)
        await asyncio.sleep(600)
    return "flushed"

print(run_until_signalled(work), flush=True)
"""


def start(mode: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_work_end_in_order(number: signal.Signals) -> None:
    process = start("orderly")
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert out == "flushed\n"
    assert process.returncode == 0


def test_a_second_signal_forces() -> None:
    process = start("stubborn")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "stopping\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert out == ""
    assert process.returncode != 0


def test_handlers_are_put_back_and_threads_may_use_it() -> None:
    async def nothing(_stop: object) -> int:
        return os.getpid()

    before = signal.getsignal(signal.SIGTERM)
    assert run_until_signalled(nothing) == os.getpid()
    assert signal.getsignal(signal.SIGTERM) is before
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run_until_signalled(nothing)))
    thread.start()
    thread.join(20)
    assert results == [os.getpid()]
