"""Compares what a caller heard with what the model says it had to hear."""

from typing import Any

from store.errors import Conflict, NotFound, StoreUnavailable
from store.ledger.types import CallerLeft, CapState, Granted, Refused, Settled, Stale
from tests.simulation.records import Expected, StateSeen, Violation


def compare(who: str, expected: Expected | None, heard: Any, *, waits: bool = False) -> None:
    """Raises Violation when they differ. `waits`: the model has it wait in line."""
    word = _word(heard)
    if waits and expected is None:
        check = {"granted": "past a hard cap", "refused": "false refusal"}.get(word, "answer")
        raise Violation(check, f"{who} heard {word!r} and had to wait")
    if expected is None:
        raise Violation("durable before it is answered", f"{who} heard {word!r} and nothing of it is in the books")
    if word != expected.word:
        raise Violation(
            _kind(expected, word), f"{who} heard {word!r}, the model says {expected.word!r} {expected.blocking} {expected.amount}"
        )
    if isinstance(heard, Granted):
        _same(who, "amount held", heard.amount_nanos, expected.amount)
        _same(who, "alone", heard.alone, expected.alone)
        _same(who, "would refuse", heard.would_refuse, expected.would_refuse)
    elif isinstance(heard, Refused):
        _same(who, "false refusal", heard.held_only, expected.held_only)
        _same(who, "what is in the way", tuple((e.state.cap.id, e.needed) for e in heard.exceeded), expected.blocking)
    elif isinstance(heard, Stale):
        _same(who, "revision", heard.revision, expected.revision)
    elif isinstance(heard, Settled):
        _same(who, "over the hold", heard.over_hold, expected.over_hold)
    if isinstance(heard, Granted | Settled) and expected.states is not None:
        _same(who, "sums", tuple(map(_seen, heard.caps)), expected.states)


def _word(heard: Any) -> str:
    if isinstance(heard, Settled):
        return "repeated" if heard.repeated else "adjusted" if heard.adjusted else "settled"
    words = {Granted: "granted", Refused: "refused", Stale: "stale", Conflict: "conflict", NotFound: "unknown", CallerLeft: "left"}
    return next((word for kind, word in words.items() if isinstance(heard, kind)), type(heard).__name__)


def _kind(expected: Expected, word: str) -> str:
    if word == "refused":
        return "false refusal"
    if expected.word == "refused" and word == "granted":
        return "past a hard cap"
    return {"stale": "stale", "repeated": "settled exactly once"}.get(expected.word, "answer")


def _same(who: str, check: str, heard: object, expected: object) -> None:
    if heard != expected:
        raise Violation(check, f"{who} heard {heard!r}, the model says {expected!r}")


def _seen(state: CapState) -> StateSeen:
    start, end = state.window_start_ms, state.resets_at_ms
    return StateSeen(state.cap.id, state.used, state.held, state.limit, start, end)


def is_unavailable(heard: Any) -> bool:
    return isinstance(heard, StoreUnavailable) and not isinstance(heard, CallerLeft)
