"""How a lake's bytes get to a disk or an object store, and how several writers of one partition agree.

A manifest is read, changed and written back, by several writers at once. Three ways keep them from losing one
another's files, each as the store allows:

- local disk: a lock on the partition's folder (``flock``), which the kernel drops when its holder dies;
- S3 and what speaks its protocol: a manifest is put on the condition that it is still the one that was read
  (``If-Match``, ``If-None-Match``); who comes second reads again. A store that ignores the condition is refused;
- any other fsspec filesystem: a lock object that only one can create. A writer that died leaves it behind, and the
  error that others then get says which object to delete.
"""

import errno
import fcntl
import os
import posixpath
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import fsspec
import fsspec.asyn
from fsspec.implementations.local import LocalFileSystem

from arb_pipeline.errors import ArbError

__all__ = ["Files", "StoreError", "open_files"]

LOCK: Final = "_lock"
MARKER: Final = "_conditional_writes"
_LOCK_WAIT_S: Final = 60.0
_READERS: Final = 16
_DELETED_AT_ONCE: Final = 1_000
_CHANGED: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409", "NoSuchKey", "404"})


class StoreError(ArbError):
    """A store that cannot keep a lake; the message says why."""


def open_files(root: str) -> "Files":
    """The files below a root: a folder or an fsspec URL."""
    # Listings are asked for when they are needed, and must be true then: others write to the store too.
    filesystem, path = fsspec.core.url_to_fs(root, use_listings_cache=False)
    kind = LocalFiles if isinstance(filesystem, LocalFileSystem) else Files
    if "s3" in ((filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol):
        kind = S3Files
    return kind(filesystem, path.rstrip("/"))


class Files:
    """Files of any fsspec filesystem, whole at a time. Paths are the filesystem's own.

    What a store cannot do now (no connection, no space, no permission) is an OSError, whatever its client calls it.
    """

    is_local = False
    sweeps = True
    """Whether a writer in its turn is alone in the folder, so that what no manifest lists is nobody's."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str) -> None:
        self.filesystem = filesystem
        self.root = root

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Within, trouble with the store is an OSError."""
        yield

    def read(self, path: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError: if there is none.
        """
        with self.errors():
            data: bytes = self.filesystem.cat_file(path)
            return data

    def read_all(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Contents of those files that exist; from another machine, several at a time."""

        def attempt(path: str) -> bytes | None:
            try:
                return self.read(path)
            except FileNotFoundError:
                return None

        if self.is_local or len(paths) < 2:
            answers = [attempt(path) for path in paths]
        else:
            with ThreadPoolExecutor(_READERS) as pool:
                answers = list(pool.map(attempt, paths))
        return {path: data for path, data in zip(paths, answers, strict=True) if data is not None}

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """A file's content and a word for this version of it; None if there is no file."""
        try:
            return self.read(path), ""
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """Write a file, which others see whole or not at all."""
        with self.errors():
            self.filesystem.pipe_file(path, data)

    def swap(self, path: str, data: bytes, version: str | None) -> bool:
        """Write a file that still has this version (None: does not exist); whether it had.

        To be called in the folder's turn.
        """
        del version  # in its turn nobody else writes
        self.write(path, data)
        return True

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, as far as they are there."""
        for path in paths:
            try:
                with self.errors():
                    self.filesystem.rm_file(path)
            except FileNotFoundError:
                continue

    def delete_version(self, path: str, version: str) -> None:
        """Delete a file if it still has this version."""
        del version
        self.delete([path])

    def remove_empty(self, folder: str) -> None:
        """Remove a folder without files and those above it, up to the root, where folders exist by themselves."""

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        with self.errors():
            return bool(self.filesystem.exists(path))

    def size(self, path: str) -> int:
        """A file's length, bytes.

        Raises:
            FileNotFoundError: if there is none.
        """
        with self.errors():
            return int(self.filesystem.info(path)["size"])

    def modified(self, path: str) -> datetime:
        """When a file was written, by the store's clock."""
        with self.errors():
            written: datetime = self.filesystem.modified(path)
            return written

    def names(self, folder: str) -> list[str]:
        """Names of what is directly in a folder; none if it does not exist."""
        try:
            with self.errors():
                paths = self.filesystem.ls(folder, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(posixpath.basename(path.rstrip("/")) for path in paths)

    def find(self, folder: str) -> list[str]:
        """Paths of all files at any depth below a folder: one flat listing."""
        try:
            with self.errors():
                return sorted(self.filesystem.find(folder))
        except FileNotFoundError:
            return []

    @contextmanager
    def turn(self, folder: str, *, create: bool = True) -> Iterator[bool]:
        """A writer's turn in a partition's folder; whether there is one (always, unless ``create`` is False).

        Raises:
            OSError: if another one's turn does not end.
        """
        if not create and not self.names(folder):
            yield False
            return
        path = posixpath.join(folder, LOCK)
        self._take(path)
        try:
            yield True
        finally:
            self.delete([path])

    def _take(self, path: str) -> None:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                with self.errors():
                    self.filesystem.pipe_file(path, f"pid {os.getpid()}".encode(), mode="create")
            except FileExistsError:
                if time.monotonic() > deadline:
                    raise OSError(
                        errno.EBUSY,
                        f"another process writes to this partition for longer than {_LOCK_WAIT_S:g} s; if none does, "
                        "one died there: delete the lock",
                        path,
                    ) from None
                time.sleep(random.uniform(0.01, 0.05))  # noqa: S311 - spreads retries, guards nothing
            else:
                return


class LocalFiles(Files):
    """Files of this machine's disks: written, fsynced, and renamed into place."""

    is_local = True

    def write(self, path: str, data: bytes) -> None:
        """Write a file, which is durable on return."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def remove_empty(self, folder: str) -> None:
        """Remove a folder and those above it, up to the root, as far as they are empty."""
        path = Path(folder)
        while path != Path(self.root) and Path(self.root) in path.parents:
            try:
                path.rmdir()
            except OSError:
                return
            path = path.parent

    @contextmanager
    def turn(self, folder: str, *, create: bool = True) -> Iterator[bool]:
        """Hold the folder's lock."""
        handle = self._lock(folder, create=create)
        if handle is None:
            yield False
            return
        try:
            yield True
        finally:
            os.close(handle)

    @staticmethod
    def _lock(folder: str, *, create: bool) -> int | None:
        while True:
            try:
                if create:
                    Path(folder).mkdir(parents=True, exist_ok=True)
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                if create:
                    continue  # removed just after it was made
                return None
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(handle), os.stat(folder)):  # noqa: PTH116 - samestat's companion
                    return handle
            except FileNotFoundError:
                pass
            os.close(handle)  # the folder was removed while this one waited; another one may have its name by now


class S3Files(Files):
    """Objects of S3 or a store that speaks its protocol."""

    sweeps = False

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str) -> None:
        super().__init__(filesystem, root)
        self._proven = False

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Within, trouble with the store is an OSError."""
        from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]  # noqa: PLC0415 - with s3fs

        try:
            yield
        except BotoCoreError as error:
            raise OSError(f"the object store does not answer: {error}") from error

    def read(self, path: str) -> bytes:
        """An object's content, by one request."""
        return self._read(path)[0]

    def read_version(self, path: str) -> tuple[bytes, str] | None:
        """An object's content and its ETag; None if there is none."""
        try:
            return self._read(path)
        except FileNotFoundError:
            return None

    def _read(self, path: str) -> tuple[bytes, str]:
        with self.errors():
            answer: tuple[bytes, str] = fsspec.asyn.sync(self.filesystem.loop, self._get, path)
            return answer

    async def _get(self, path: str) -> tuple[bytes, str]:
        answer = await self.filesystem._call_s3("get_object", **self._named(path))  # noqa: SLF001 - has no public twin
        try:
            return await answer["Body"].read(), answer["ETag"]
        finally:
            answer["Body"].close()

    def _named(self, path: str) -> dict[str, Any]:
        bucket, key, _ = self.filesystem.split_path(path)
        return {"Bucket": bucket, "Key": key}

    def swap(self, path: str, data: bytes, version: str | None) -> bool:
        """Put an object that still has this ETag (None: that does not exist); whether it had.

        Raises:
            StoreError: if the store does not heed such conditions.
        """
        if not self._proven:
            self._prove()
        if self._put_if(path, data, version):
            return True
        # A put that was tried again after a lost answer is refused because of itself.
        held = self.read_version(path)
        return held is not None and held[0] == data

    def _put_if(self, path: str, data: bytes, version: str | None) -> bool:
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            with self.errors():
                self.filesystem.call_s3("put_object", **self._named(path), Body=data, **condition)
        except OSError as error:
            if _code(error) in _CHANGED and _code(error) != "NoSuchBucket":
                return False
            raise
        return True

    def _prove(self) -> None:
        """Put on a condition that is not met: a store that takes it all the same would lose files."""
        marker = posixpath.join(self.root, MARKER)
        self._put_if(marker, b"this store heeds conditional writes\n", None)
        if self._put_if(marker, b"this store does not heed conditional writes\n", '"0"'):
            raise StoreError(
                f"the store of {self.root} takes a put with If-Match whatever is there: two writers of a partition "
                "would lose each other's files; use one that heeds conditional writes"
            )
        self._proven = True

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, up to a thousand with one request."""
        named = [self._named(path) for path in paths]
        for begin in range(0, len(named), _DELETED_AT_ONCE):
            some = named[begin : begin + _DELETED_AT_ONCE]
            keys = {"Objects": [{"Key": one["Key"]} for one in some], "Quiet": True}
            with self.errors():
                answer = self.filesystem.call_s3("delete_objects", Bucket=some[0]["Bucket"], Delete=keys)
            if failed := answer.get("Errors"):
                raise OSError(errno.EIO, f"{len(failed)} objects could not be deleted: {failed[0].get('Message')}")

    def delete_version(self, path: str, version: str) -> None:
        """Delete an object if it still has this ETag; where the store knows no conditional deletes, leave it."""
        try:
            with self.errors():
                self.filesystem.call_s3("delete_object", **self._named(path), IfMatch=version)
        except OSError as error:
            if _code(error) not in _CHANGED | {"NotImplemented", "501"}:
                raise

    @contextmanager
    def turn(self, folder: str, *, create: bool = True) -> Iterator[bool]:
        """Writers take no turns here: the manifest's put is conditional."""
        del folder, create
        yield True


def _code(error: OSError) -> str:
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
