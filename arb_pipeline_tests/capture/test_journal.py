import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arb_pipeline.capture import journal
from arb_pipeline.capture.journal import (
    Begun,
    Ended,
    FeedAdded,
    Frame,
    JournalError,
    JournalReader,
    JournalWriter,
    Lost,
    Opened,
    Record,
    RestBook,
    RunFolder,
    Sent,
    Tick,
    file_lock,
    journal_root,
)
from arb_pipeline.model import MarketFacts

RECORDS: list[Record] = [
    Begun("run", (0, 1), 10, (None, 20), "an exchange", {"flush_ms": 100.0}),
    FeedAdded(0, "fake", "run/fake/0"),
    Opened(0, 11, "run/fake/0.1", (MarketFacts(venue="fake", market_id="M", tick=10),)),
    Sent(0, 11, '["hello"]'),
    Frame(0, 12, '["snap", "M"] \u20ac'),
    RestBook(0, 13, "M", b"\xff[]"),
    Tick(0, 14),
    Lost(0, 15, "reset by peer"),
    Ended(16, "stopped"),
]

VERSION_1 = bytes.fromhex("4152424a01000000000000008f0798ed04000000ba7ec26f9305000e04000000d0036f7f930501fd")
"""The first segment of a journal as version 1 wrote it: two ticks, the second one damaged."""


def everything(folder: Path) -> list[Record]:
    reader = JournalReader(folder)
    found: list[Record] = []
    while records := reader.read():
        found += records
    return found


def write(folder: Path, records: list[Record], **options: Any) -> None:
    writer = JournalWriter(folder, 60, **options)
    for record in records:
        writer.append(record)
        writer.sync()
    writer.close()


def test_what_goes_in_comes_out_over_several_segments(tmp_path: Path) -> None:
    write(tmp_path, RECORDS, segment_bytes=60)
    assert len(list(tmp_path.glob("*.seg"))) > 3
    assert everything(tmp_path) == RECORDS


def test_old_segments_are_followed_by_new_ones(tmp_path: Path) -> None:
    write(tmp_path, RECORDS, segment_s=0)
    assert len(list(tmp_path.glob("*.seg"))) == len(RECORDS)
    assert everything(tmp_path) == RECORDS


def test_records_are_on_disk_within_the_flush_interval_without_being_asked(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, 0.01)
    writer.append(RECORDS[0])
    reader = JournalReader(tmp_path)
    for _ in range(2_000):
        if found := reader.read():
            break
        os.sched_yield()
        writer._closed.wait(0.01)
    assert found == [RECORDS[0]]
    writer.close()


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    writer, reader = JournalWriter(tmp_path, 60, segment_bytes=100), JournalReader(tmp_path)
    assert reader.read() == []
    for record in RECORDS:
        writer.append(record)
        assert reader.read() == []
        writer.sync()
        assert reader.read() == [record]
        assert reader.read() == []
    writer.close()
    assert reader.records == len(RECORDS)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_truncation_gives_a_prefix(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("journal")
    write(folder, RECORDS, segment_bytes=data.draw(st.sampled_from([60, 120, 100_000])))
    segments = sorted(folder.glob("*.seg"))
    last = data.draw(st.integers(0, len(segments) - 1))
    for path in segments[last + 1 :]:
        path.unlink()
    size = segments[last].stat().st_size
    cut = data.draw(st.integers(0, size))
    os.truncate(segments[last], cut)
    found = everything(folder)
    assert found == RECORDS[: len(found)]
    if cut == size and last == len(segments) - 1:
        assert len(found) == len(RECORDS)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_record_and_what_follows_is_left_out(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    write(folder, RECORDS, segment_bytes=120)
    path = data.draw(st.sampled_from(sorted(folder.glob("*.seg"))))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(16, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = everything(folder)
    assert len(found) < len(RECORDS)
    assert found == RECORDS[: len(found)]


def test_a_file_extended_but_not_filled_ends_where_the_records_do(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    path = tmp_path / "000000.seg"
    os.truncate(path, path.stat().st_size + 4096)
    assert everything(tmp_path) == RECORDS


def test_version_1_stays_readable(tmp_path: Path) -> None:
    (tmp_path / "000000.seg").write_bytes(VERSION_1)
    assert everything(tmp_path) == [Tick(0, 14)]


def test_a_newer_version_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "VERSION", 9)
    write(tmp_path, RECORDS)
    monkeypatch.undo()
    with pytest.raises(JournalError, match=r"version 9.*install a newer"):
        everything(tmp_path)


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "000000.seg").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(JournalError, match="no journal segment"):
        everything(tmp_path)


def test_a_full_disk_is_told_and_nothing_is_lost_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JournalWriter(tmp_path, 60, backlog_bytes=100)
    writer.append(RECORDS[0])
    writer.sync()
    pwrite = os.pwrite

    def half_of_it(fd: int, data: memoryview, offset: int) -> int:
        pwrite(fd, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", half_of_it)
    for record in RECORDS[1:4]:
        writer.append(record)
        writer.sync()
    assert "No space left" in writer.error
    assert writer.full
    assert everything(tmp_path) == RECORDS[:1]
    monkeypatch.undo()
    writer.sync()
    assert (writer.error, writer.full) == ("", False)
    for record in RECORDS[4:]:
        writer.append(record)
    writer.close()
    assert everything(tmp_path) == RECORDS


def test_a_locks_holder_is_alone_and_its_death_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    with file_lock(path) as mine:
        assert mine
        with file_lock(path) as other:
            assert not other
    script = (
        "import sys, time, pathlib; from arb_pipeline.capture.journal import try_lock; "
        "print(try_lock(pathlib.Path(sys.argv[1])), flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdigit()
    with file_lock(path) as mine:
        assert not mine
    process.kill()
    process.wait()
    process.stdout.close()
    with file_lock(path) as mine:
        assert mine


def test_a_lock_in_a_folder_that_is_gone_cannot_be_had(tmp_path: Path) -> None:
    with file_lock(tmp_path / "gone" / "run.lock") as mine:
        assert not mine
    assert not (tmp_path / "gone").exists(), "a deleted journal does not come back as an empty one"


def test_journals_lie_beside_a_local_lake_each_lake_having_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (journal_root(None, str(tmp_path / name)) for name in ("a", "b"))
    assert a.parent == b.parent == tmp_path / "journal"
    assert a != b
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert journal_root(None, "s3://bucket/lake").parent == tmp_path / "state" / "arb_pipeline" / "journal"
    assert journal_root(tmp_path / "j", "s3://bucket/lake").parent == tmp_path / "j"


def test_a_removed_journal_is_gone_at_once_and_what_a_kill_left_of_it_later(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.path.mkdir(parents=True)
    folder.run_lock.touch()
    left = tmp_path / "runs" / ".other.committed"
    left.mkdir()
    assert [found.path for found in RunFolder.all(tmp_path / "runs")] == [folder.path]
    assert not left.exists()
    folder.remove()
    assert list((tmp_path / "runs").iterdir()) == []
