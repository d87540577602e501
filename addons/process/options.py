"""What the command line asks of `serve`, and what the supervisor tells its children: plain values, JSON between processes."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """`tollgate serve`'s options. Ports of 0 are free ones."""

    app_dir: Path
    config: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    inspect_port: int = 8081
    console_port: int = 8082
    console_host: str = "127.0.0.1"
    inspect: bool = True
    workers: int = 1
    reseed: bool = False
    log_level: str = "info"
    mode: tuple[str, ...] = ()
    grace: float = 30.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """A child process's orders: sockets by file descriptor, addresses, where the inspector is fed."""

    role: str
    """`worker` or `console`."""
    app_dir: str
    config: str | None
    host: str
    port: int
    console_host: str
    console_port: int
    inspect_port: int | None
    gateway_fds: tuple[int, ...] = ()
    listener_fds: tuple[tuple[int, ...], ...] = ()
    console_fds: tuple[int, ...] = ()
    inspect_fds: tuple[int, ...] = ()
    feed_fds: tuple[int, ...] = ()
    feed_port: int = 0
    feed_token: str = dataclasses.field(default="", repr=False)
    inspect_token: str = dataclasses.field(default="", repr=False)
    grace: float = 30.0
    log_level: str = "info"
    mode: tuple[str, ...] = ()
    version: str = ""
    settings_follow: bool = False
    """The next line holds the settings (`accepted.Accepted`); `config` is then their file's name alone."""

    def to_line(self) -> bytes:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "ChildSpec":
        """The spec of a line that `to_line` made. Raises ValueError for anything else."""
        raw: dict[str, Any] = json.loads(line)
        try:
            for name in ("gateway_fds", "console_fds", "inspect_fds", "feed_fds", "mode"):
                raw[name] = tuple(raw[name])
            raw["listener_fds"] = tuple(tuple(fds) for fds in raw["listener_fds"])
            return cls(**raw)
        except (KeyError, TypeError):
            # Not the line itself: it may hold tokens.
            raise ValueError("these are no orders for a child process") from None
