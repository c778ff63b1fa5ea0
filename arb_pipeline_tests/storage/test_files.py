import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from arb_pipeline.storage import Lake
from arb_pipeline.storage.check import Problem, check
from arb_pipeline.storage.files import LOCK, LocalFiles, S3Files, open_files
from arb_pipeline_tests.conftest import ObjectStore, required
from arb_pipeline_tests.storage.rows import TWENTY, quotes


@pytest.fixture
def memory() -> Iterator[Lake]:
    yield Lake("memory://files-of-test")
    fsspec.filesystem("memory").rm("/files-of-test", recursive=True)


def test_each_kind_of_root_has_its_way_of_keeping_writers_apart(tmp_path: Path, s3_lake: ObjectStore) -> None:
    assert isinstance(open_files(str(tmp_path)), LocalFiles)
    assert isinstance(open_files(f"file://{tmp_path}"), LocalFiles)
    assert isinstance(open_files(s3_lake.url), S3Files)
    assert not isinstance(open_files("memory://x"), LocalFiles | S3Files)


def test_elsewhere_a_partition_is_locked_by_an_object_that_says_how_to_go_on(
    memory: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arb_pipeline.storage.files._LOCK_WAIT_S", 0.1)
    folder = memory.location("quotes", TWENTY)
    with memory.store.turn(folder):
        assert LOCK in memory.store.names(folder)
        with pytest.raises(OSError, match=r"another process writes.*delete the lock.*_lock"):
            memory.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    memory.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
    memory.compact("quotes", TWENTY)
    assert LOCK not in memory.store.names(folder)
    memory.store.write(f"{folder}/{LOCK}", b"of a writer that died")
    [finding] = check(memory, repair=True, grace=timedelta(0)).findings
    assert (finding.problem, finding.file, finding.repaired) == (Problem.ORPHAN, LOCK, False)


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_files(str(tmp_path))

    def full(_: int) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space"):
            store.write(f"{tmp_path}/x", b"content")
    assert list(tmp_path.iterdir()) == []


def test_reading_several_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    store = open_files(str(tmp_path))
    store.write(f"{tmp_path}/a", b"1")
    assert store.read_all([f"{tmp_path}/a", f"{tmp_path}/b"]) == {f"{tmp_path}/a": b"1"}
    assert store.read_all([]) == {}
    assert store.read_version(f"{tmp_path}/b") is None


def test_a_manifest_that_never_stands_still_is_an_os_error(
    s3_lake: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arb_pipeline.storage.lake._SWAP_WAIT_S", 0.0)
    monkeypatch.setattr("arb_pipeline.storage.lake._SWAP_TRIES", 3)
    monkeypatch.setattr(S3Files, "swap", lambda *_: False)
    with pytest.raises(OSError, match="changed the manifest 3 times in a row"):
        Lake(s3_lake.url).write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")


def test_a_store_that_does_not_answer_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = required("s3fs")
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    lake = Lake("s3://bucket/lake-that-is-away")
    # An instance that the other tests' server is known to would be taken from fsspec's cache.
    monkeypatch.setattr(lake.store, "filesystem", s3fs.S3FileSystem(skip_instance_cache=True))
    monkeypatch.setattr(lake.store.filesystem, "retries", 1)
    with pytest.raises(OSError, match=r"object store does not answer|connect"):
        lake.write_part("quotes", TWENTY, quotes(("A", 1, 1)), "run")
