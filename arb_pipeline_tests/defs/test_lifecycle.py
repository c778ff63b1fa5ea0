import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from arb_pipeline.defs.capture.lifecycle import HEARTBEAT_TAG, Lease, StopSwitch

_CAPTURE = """
import asyncio, pathlib, sys
from arb_pipeline.defs.capture.lifecycle import StopSwitch

async def main(path):
    rows = []
    with StopSwitch(asyncio.get_running_loop()) as stop:
        print("ready", flush=True)
        while not stop.event.is_set():
            rows.append("row")          # busy: the loop hardly ever sleeps
            await asyncio.sleep(0)
    path.write_text(f"{len(rows)} {stop.reason}")

asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_busy_capture_with_everything_flushed(tmp_path: Path, number: signal.Signals) -> None:
    flushed = tmp_path / "flushed"
    with subprocess.Popen([sys.executable, "-c", _CAPTURE, str(flushed)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(20) == 0
    rows, reason = flushed.read_text().split()
    assert int(rows) > 0
    assert reason == number.name


async def test_a_second_signal_breaks_a_call_that_blocks() -> None:
    with StopSwitch(asyncio.get_running_loop()) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(stop.event.wait(), 5)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            os.kill(os.getpid(), signal.SIGINT)


async def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSwitch(asyncio.get_running_loop()):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_a_loop_that_hangs_ends_the_process() -> None:
    ended = threading.Event()
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    with StopSwitch(asyncio.get_running_loop(), hang_s=0.05, end_process=end):
        assert ended.wait(5)  # blocks the loop on purpose
    assert codes == [70]


async def test_a_loop_that_beats_is_left_alone() -> None:
    codes: list[int] = []
    with StopSwitch(asyncio.get_running_loop(), hang_s=1.0, end_process=codes.append) as stop:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            stop.beat()
            await asyncio.sleep(0.05)
    assert codes == []


def test_outside_the_main_thread_the_event_still_works() -> None:
    async def main() -> bool:
        with StopSwitch(asyncio.get_running_loop()) as stop:
            stop.event.set()
            return stop.event.is_set()

    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(asyncio.run(main())))
    thread.start()
    thread.join(10)
    assert seen == [True]


def test_a_lease_beats_without_events_and_is_lost_when_the_run_is_given_up() -> None:
    job = dg.GraphDefinition("some_job").to_job()
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        lease = Lease(instance, run.run_id, wall=iter([100.0, 200.0]).__next__)
        events = len(instance.all_logs(run.run_id))
        lease.renew()
        lease.renew()
        renewed = instance.get_run_by_id(run.run_id)
        assert renewed is not None
        assert renewed.tags[HEARTBEAT_TAG] == "200.0"
        assert len(instance.all_logs(run.run_id)) == events
        assert lease.held()
        assert not lease.cancelled()
        instance.report_run_canceling(run)
        assert lease.held()
        assert lease.cancelled()
        instance.report_run_failed(run)
        assert not lease.held()
