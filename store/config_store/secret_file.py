"""Secrets that stand in files of their own, as Docker and Kubernetes mount them: one line of text, read when it is needed."""

import os
import stat
import sys
from pathlib import Path

LARGEST_BYTES = 65_536
_MOUNTED = ("/run/secrets/", "/var/run/secrets/")


class CannotRead(Exception):
    """The file does not give a secret; the text says why, as a part of a sentence, and never holds what is in the file."""


def read_secret_file(path: Path) -> str:
    """The one line of text in a file, without the line break at its end. Raises CannotRead."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CannotRead(f"{path} is no plain file")
            raw = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise CannotRead(f"the file {path} cannot be read ({error.strerror or 'no reason given'})") from None
    except ValueError:  # a path that no system takes
        raise CannotRead(f"{str(path)!r} is no path") from None
    if len(raw) > LARGEST_BYTES:
        raise CannotRead(f"the file {path} has more than {LARGEST_BYTES} bytes, which is no secret")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CannotRead(f"the file {path} is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise CannotRead(f"the file {path} is empty")
    if any(character in text for character in "\n\r\0"):
        raise CannotRead(f"the file {path} has several lines; a secret is one line")
    return text


def open_to_all(path: Path) -> bool:
    """Whether every user of this machine may read the file. Not for mounts of a container's secrets, which are its own alone."""
    if sys.platform == "win32":
        return False
    try:
        real = os.path.realpath(path)
        mode = os.stat(real).st_mode
    except (OSError, ValueError):
        return False
    if real.startswith(_MOUNTED) or str(path).startswith(_MOUNTED) or any(part.startswith("..") for part in Path(real).parts):
        return False
    return bool(mode & stat.S_IROTH) and _reachable_by_all(Path(real))


def fingerprint(path: Path) -> tuple[int, ...] | None:
    """What differs once the file was written or replaced, also by a link that leads elsewhere; None when there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _reachable_by_all(path: Path) -> bool:
    """Whether every directory on the way lets everybody through."""
    try:
        return all(os.stat(parent).st_mode & stat.S_IXOTH for parent in path.parents)
    except OSError:
        return False


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
