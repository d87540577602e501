"""Real ways in which a store cannot be written: full and read-only disks, locks of others. Each is a context manager that heals."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

ONE_PAGE = 8_192
"""Bytes that hold one page of a write-ahead log, and some dozen settlements in a spool file, but no transaction of the ledger."""


def can_limit_size() -> bool:
    """Whether the size of files can be limited for processes that run already (Linux)."""
    return sys.platform == "linux"


@contextmanager
def size_limit(pids: Iterable[int], size: int = ONE_PAGE) -> Iterator[None]:
    """These processes can write no file beyond `size`: an I/O error in the store, while small new files still work."""
    pids = list(pids)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def can_freeze_files(directory: Path) -> bool:
    """Whether files here can be made immutable, also for who has them open (root, on ext4 and its like)."""
    probe = directory / "probe"
    probe.write_bytes(b"")
    try:
        if shutil.which("chattr") is None or _run("chattr", "+i", str(probe)):
            return False
        _run("chattr", "-i", str(probe))
        return True
    finally:
        probe.unlink()


@contextmanager
def read_only(paths: Iterable[Path]) -> Iterator[None]:
    """Nobody can write these files, not even through a handle opened before: a file system that has turned read-only."""
    names = [str(path) for path in paths]
    if _run("chattr", "+i", *names):
        raise RuntimeError("the files could not be made immutable")
    try:
        yield
    finally:
        _run("chattr", "-i", *names)


@contextmanager
def locked_by_a_shell(path: Path) -> Iterator[None]:
    """Somebody has opened the file with another program and begun a transaction, as in `sqlite3 config.db 'BEGIN EXCLUSIVE'`."""
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(10_000)
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def locked_by_a_sleeper(path: Path) -> Iterator[None]:
    """What a process leaves that is suspended in the middle of a transaction: the file lock in front of the database is taken."""
    fd = os.open(path.with_name(path.name + ".lock"), os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def can_mount() -> bool:
    """Whether file systems can be mounted here (root, and not in a container that forbids it)."""
    return sys.platform == "linux" and hasattr(os, "geteuid") and os.geteuid() == 0 and not _run("unshare", "-m", "true")


@contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """A file system of this size, mounted on `directory`."""
    directory.mkdir()
    if _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)):
        raise RuntimeError("no file system could be mounted")
    try:
        yield directory
    finally:
        _run("umount", "-l", str(directory))


@contextmanager
def filled(directory: Path) -> Iterator[None]:
    """Not a byte more fits on the file system of this directory."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65_536))
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x")
    try:
        yield
    finally:
        filler.unlink()


def _run(*command: str) -> int:
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode
    except FileNotFoundError:
        return 127
