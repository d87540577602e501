"""Ledger and logs with calls of a test's choosing, at whatever times, written by the ledger's own batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from store.database import Connection, Database
from store.ledger.batch import Batch
from store.ledger.books import Books
from store.ledger.types import CallFacts, Granted, HoldRequest, Settlement
from store.logs.batch import write_rows
from store.logs.types import CallRow


@dataclass(frozen=True, slots=True)
class Called:
    """One call of ours. Money in nano-dollars; `held_nanos` None: exactly the cost."""

    id: str
    at_ms: int
    model: str
    """As it was asked for."""
    input: int
    output: int
    answered: str = ""
    cache_read: int = 0
    cache_write: int = 0
    cost_nanos: int = 0
    held_nanos: int | None = None
    provider: str = "openai"
    ending: Literal["post", "estimated", "unconfirmed", "void", "open"] = "post"
    took_ms: int = 1_000
    logged: bool = True
    priced: bool = True
    remade: bool = False
    """Its log row was lost and made again from the ledger, which does not know the cache classes."""


def write_books(ledger: Database, logs: Database | None, calls: Sequence[Called]) -> None:
    """Holds and settles every call at its own time, and logs it."""
    with ledger.write() as connection:
        for call in sorted(calls, key=lambda one: one.at_ms):
            _hold(connection, call)
            _settle(connection, call)
    if logs is not None:
        with logs.write() as connection:
            write_rows(connection, [_log_row(call) for call in calls if call.logged and call.ending != "open"])


def _hold(connection: Connection, call: Called) -> None:
    held = call.cost_nanos if call.held_nanos is None else call.held_nanos
    facts = CallFacts("vk-1", "workshop-vk-1", provider=call.provider, model=call.model, operation="chat_completion")
    request = HoldRequest(call.id, (), held, held, tokens=call.input + call.output, trim=False, revision=2**40, facts=facts)
    batch = Batch(connection, Books(connection, call.at_ms), epoch="made", revision=0)
    batch.prepare([request], [])
    if not isinstance(batch.hold(request), Granted):
        raise AssertionError("a hold without caps was not granted")
    batch.flush()


def _settle(connection: Connection, call: Called) -> None:
    if call.ending == "open":
        return
    batch = Batch(connection, Books(connection, call.at_ms + call.took_ms), epoch="made", revision=0)
    batch.prepare([], [call.id])
    if call.ending == "unconfirmed":
        batch.post_unconfirmed(call.id, "the gateway died")
    else:
        batch.settle(
            Settlement(
                call.id,
                call.cost_nanos,
                call.input + call.output,
                sent=call.ending != "void",
                estimated=call.ending == "estimated",
                input_tokens=call.input,
                output_tokens=call.output,
                model=call.answered,
                price_source="genai-prices 0.2.3",
                note="complete",
            )
        )
    batch.flush()


def _log_row(call: Called) -> CallRow:
    known = call.ending in ("post", "estimated")
    return CallRow(
        id=call.id,
        at_ms=call.at_ms,
        status="success" if known else "unconfirmed",
        http_status=200,
        provider=call.provider,
        model=call.model,
        answered_model=call.answered,
        input_tokens=call.input,
        output_tokens=call.output,
        cache_read_tokens=0 if call.remade else call.cache_read,
        cache_write_tokens=0 if call.remade else call.cache_write,
        cost_nanos=call.cost_nanos,
        priced=call.priced,
        estimated=call.ending == "estimated",
        method="" if call.remade else "POST",
    )
