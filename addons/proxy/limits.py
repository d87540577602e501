"""How much one client may send, and for how long anybody may keep us waiting (`gateway.limits` in the configuration)."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024
KIBIBYTE = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on clients and upstream servers; sizes in bytes, times in seconds, all of them above zero."""

    max_body_bytes: int = 32 * MEBIBYTE
    """Largest request body that is kept in memory; a single flow may have its own (`set_body_limit`)."""
    max_header_bytes: int = 64 * KIBIBYTE
    """Largest request line plus headers."""
    max_connections: int = 10_000
    """Client connections held at the same time by this process."""
    header_timeout_seconds: float = 10.0
    """From a new connection, or the first byte of a later request, to the end of the request's headers."""
    connect_timeout_seconds: float = 10.0
    first_byte_timeout_seconds: float = 600.0
    idle_stream_timeout_seconds: float = 300.0


_current = Limits()


def current_limits() -> Limits:
    """The limits in force in this process."""
    return _current


def set_limits(limits: Limits) -> None:
    """Puts limits in force for this process, live connections included.

    Raises ValueError when one of them is not above zero.
    """
    for name in Limits.__slots__:
        if getattr(limits, name) <= 0:
            raise ValueError(f"the limit {name} must be above zero, not {getattr(limits, name)}")
    global _current
    _current = limits
