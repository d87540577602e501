"""SQLite's write-ahead log from outside: where its transactions end, and how to hurt it. SQLite documents the format."""

import struct
from dataclasses import dataclass
from pathlib import Path

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_MAGIC = (0x377F0682, 0x377F0683)


@dataclass(frozen=True, slots=True)
class Wal:
    """A log as it lies on the disk."""

    page_size: int
    commits: tuple[int, ...]
    """Offsets at which transactions end, in order."""


def read_wal(path: Path) -> Wal:
    """The log's valid frames. A frame counts while it carries the salts of the header; what lies behind is of an older round."""
    data = path.read_bytes()
    magic, _version, page_size, _checkpoints, salt_1, salt_2 = struct.unpack_from(">6I", data)
    if magic not in _MAGIC:
        raise ValueError(f"{path.name} is not a write-ahead log")
    commits = []
    offset = HEADER_BYTES
    frame_bytes = FRAME_HEADER_BYTES + page_size
    while offset + frame_bytes <= len(data):
        _page, pages_after_commit, frame_salt_1, frame_salt_2 = struct.unpack_from(">4I", data, offset)
        if (frame_salt_1, frame_salt_2) != (salt_1, salt_2):
            break
        offset += frame_bytes
        if pages_after_commit:
            commits.append(offset)
    return Wal(page_size, tuple(commits))


def tear_tail(path: Path) -> None:
    """What a power failure in the middle of a write leaves behind the last commit: a torn frame and noise."""
    wal = read_wal(path)
    end = wal.commits[-1]
    header = path.read_bytes()[:HEADER_BYTES]
    torn = struct.pack(">2I", 1, 0) + header[16:24] + bytes(8) + b"\xa5" * (wal.page_size // 2)
    with path.open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        file.write(torn)


def spoil(path: Path, at: float) -> int:
    """Flips one byte of a synced transaction, so far into the log (0 to 1); how many transactions stand before it."""
    wal = read_wal(path)
    keep = int(len(wal.commits) * at)
    position = wal.commits[keep] - wal.page_size // 2
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 0xFF]))
    return keep
