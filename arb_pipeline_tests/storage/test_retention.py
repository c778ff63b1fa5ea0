from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from arb_pipeline.clock import datetime_from_ns
from arb_pipeline.storage import Lake, Partition
from arb_pipeline.storage.check import check
from arb_pipeline.storage.files import Files
from arb_pipeline.storage.retention import expired, remove_expired
from arb_pipeline.tables import table
from arb_pipeline_tests.conftest import ObjectStore
from arb_pipeline_tests.storage.rows import HOUR, SECOND, START, TWENTY, quotes

DAY = 24 * HOUR
NOW = datetime(2026, 5, 20, 20, 30, tzinfo=UTC)


def frames(at: int, ordinal: int) -> pa.Table:
    row = {"venue": "kalshi", "source": "ws", "connection_id": "c", "recv_ns": at, "ordinal": ordinal, "frame": "{}"}
    return pa.Table.from_pylist([row], schema=table("raw_frames").schema)


def fill(lake: Lake) -> list[Partition]:
    """One hour of each of eight days, the last of them the day of NOW."""
    partitions = []
    for day in range(8):
        at = START + day * DAY
        partitions.append(Partition.of("raw_frames", "kalshi", at))
        lake.write_part("raw_frames", partitions[-1], frames(at + SECOND, day), "run")
    lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    return partitions


@pytest.fixture(params=["local", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "local":
        return Lake(str(tmp_path / "lake"))
    store: ObjectStore = request.getfixturevalue("s3_lake")
    return Lake(store.url)


def test_whole_partitions_go_and_no_other_table_is_touched(lake: Lake) -> None:
    partitions = fill(lake)
    told = expired(lake, 5, NOW)
    # 5 days before 20:30 is 20:30: the hour from 20 to 21 of that day is not over then.
    assert [one.partition for one in told] == partitions[:2]
    assert [(one.rows, one.files) for one in told] == [(1, 1), (1, 1)]
    assert all(one.bytes > 0 for one in told)
    assert lake.partitions("raw_frames") == partitions
    assert remove_expired(lake, 5, NOW) == told
    assert lake.partitions("raw_frames") == partitions[2:]
    assert lake.read("raw_frames")["ordinal"].to_pylist() == [2, 3, 4, 5, 6, 7]
    assert lake.read("quotes").num_rows == 1
    assert not [path for path in lake.store.find(lake.location("raw_frames")) if partitions[0].path in path]
    assert remove_expired(lake, 5, NOW) == []
    assert check(lake, grace=timedelta(0)).sound


def test_an_hour_is_removed_once_all_of_it_is_old_enough(lake: Lake) -> None:
    first = fill(lake)[0]
    over = datetime_from_ns(START + HOUR)
    assert expired(lake, 1, over + timedelta(days=1) - timedelta(microseconds=1)) == []
    assert [one.partition for one in expired(lake, 1, over + timedelta(days=1))] == [first]


def test_broken_off_it_shows_no_half_partition_and_is_ended_by_the_next(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fill(lake)[0]

    def crash(*_: object) -> None:
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(type(lake.store), "delete", crash)
        with pytest.raises(OSError, match="gone"):
            remove_expired(lake, 6, NOW)
    assert lake.read("raw_frames")["ordinal"].to_pylist() == list(range(1, 8))
    assert [path for path in lake.store.find(lake.location("raw_frames", first)) if path.endswith(".parquet")]
    assert [one.partition for one in remove_expired(lake, 6, NOW)] == [first]
    assert lake.store.find(lake.location("raw_frames", first)) == [] or not lake.is_local
    assert check(lake, repair=True, grace=timedelta(0)).sound
    assert lake.store.find(lake.location("raw_frames", first)) == []


def test_a_local_lake_keeps_no_empty_folders_and_writers_find_their_way_back(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    first = fill(lake)[0]
    remove_expired(lake, 6, NOW)
    assert not (tmp_path / "lake" / "raw_frames" / first.path).parent.exists()
    lake.write_part("raw_frames", first, frames(START, 99), "late")
    assert lake.read("raw_frames")["ordinal"].to_pylist()[0] == 99


def test_a_writer_that_waited_for_a_folder_that_went_makes_it_anew(tmp_path: Path) -> None:
    import threading

    lake = Lake(str(tmp_path / "lake"))
    first = fill(lake)[0]
    folder = lake.location("raw_frames", first)
    started = threading.Event()

    def write() -> None:
        started.set()
        lake.write_part("raw_frames", first, frames(START, 99), "late")

    writer = threading.Thread(target=write)
    with lake.store.turn(folder):
        writer.start()
        started.wait()
        lake.store.delete([f"{folder}/{name}" for name in lake.store.names(folder)])
        lake.store.remove_empty(folder)
    writer.join(30)
    assert 99 in lake.read("raw_frames")["ordinal"].to_pylist()


def test_days_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="positive"):
        expired(Lake(str(tmp_path)), 0, NOW)
    assert isinstance(Lake(str(tmp_path)).store, Files)
