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

from arb_pipeline.defs.capture.lifecycle import HEARTBEAT_TAG, Heartbeat, Lease, StopSwitch

_CAPTURE = """
import asyncio, pathlib, sys
from arb_pipeline.defs.capture.lifecycle import StopSwitch

async def main(path):
    rows = []
    with StopSwitch(asyncio.get_running_loop(), hang_s=60) as stop:
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
    with StopSwitch(asyncio.get_running_loop(), hang_s=60) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(stop.event.wait(), 5)
        with pytest.raises(dg.DagsterExecutionInterruptedError):
            os.kill(os.getpid(), signal.SIGINT)


async def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSwitch(asyncio.get_running_loop(), hang_s=60):
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
        with StopSwitch(asyncio.get_running_loop(), hang_s=60) as stop:
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


def _run_of(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.create_run_for_job(dg.GraphDefinition("some_job").to_job(), status=dg.DagsterRunStatus.STARTED)


def test_a_heartbeat_goes_on_while_the_main_thread_works_and_carries_notes() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = _run_of(instance)
        beats: list[float] = []
        third = threading.Event()

        def wall() -> float:
            beats.append(len(beats))
            if len(beats) == 3:
                third.set()
            return beats[-1]

        with Heartbeat(Lease(instance, run.run_id, wall), 0.01, on_error=pytest.fail) as heartbeat:
            assert third.wait(10)  # the main thread does nothing for it
            heartbeat.notes = {"arb/progress/kalshi": "12 frames"}
        told = instance.get_run_by_id(run.run_id)
        assert told is not None
        assert told.tags["arb/progress/kalshi"] == "12 frames"  # the last beat brings the last notes
        assert float(told.tags[HEARTBEAT_TAG]) == beats[-1]


def test_an_outage_of_the_storage_is_told_once_and_survived() -> None:
    class Broken:
        calls = 0

        def add_run_tags(self, run_id: str, tags: dict[str, str]) -> None:
            Broken.calls += 1
            if Broken.calls < 4:
                raise OSError("database is locked")
            recovered.set()

    recovered = threading.Event()
    told: list[str] = []
    lease = Lease(Broken(), "run")  # type: ignore[arg-type]
    with Heartbeat(lease, 0.01, on_error=told.append):
        assert recovered.wait(10)
    assert told == ["heartbeat not written: database is locked"]


def test_threads_do_not_lose_each_others_tags() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = _run_of(instance)
        lease = Lease(instance, run.run_id)
        with Heartbeat(lease, 0.0, on_error=pytest.fail):
            for number in range(50):
                lease.tag({f"arb/{number}": "set"})
        told = instance.get_run_by_id(run.run_id)
        assert told is not None
        assert {f"arb/{number}" for number in range(50)} <= set(told.tags)
