"""Our side read from a real ledger and real logs, on either engine."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.ledger.history import confirm
from store.reconcile.books import daily_sums, ledger_state, our_calls
from store.reconcile.names import Names
from store.reconcile.types import OurCall, Standing, Tokens
from tests.store.logs.stores import Stores
from tests.store.reconcile.exports_here import NOV_20, NOV_21, NOV_22
from tests.support.made_books import Called, write_books

OPENAI = frozenset({"openai", "openai-eu"})
CALL = Called("a", NOV_20 + 1000, "gpt-4o", 100, 10, answered="gpt-4o-2024-08-06", cache_read=30, cache_write=5, cost_nanos=700)


@pytest.fixture(params=["sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    place = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres_databases").fresh()
    made = Stores(place)
    yield made
    made.close()


def read(stores: Stores, *calls: Called, span: tuple[int, int] = (NOV_20, NOV_21), logs: bool = True) -> dict[str, OurCall]:
    ledger, logged = stores.ledger(), stores.logs()
    write_books(ledger, logged, calls)
    return {call.id: call for call in our_calls(ledger, logged if logs else None, OPENAI, span)}


def test_a_call_with_everything_that_is_known_of_it(stores: Stores) -> None:
    (call,) = read(stores, CALL).values()
    assert call == OurCall(
        id="a", started_ms=NOV_20 + 1000, ended_ms=NOV_20 + 2000, asked="gpt-4o", answered="gpt-4o-2024-08-06",
        tokens=Tokens(100, 30, 5, 10), cost_nanos=700, held_nanos=700, price_source="genai-prices 0.2.3",
    )  # fmt: skip


def test_which_calls_there_are(stores: Stores) -> None:
    found = read(
        stores,
        CALL,
        replace(CALL, id="custom", provider="openai-eu"),
        replace(CALL, id="other", provider="anthropic"),
        replace(CALL, id="before", at_ms=NOV_20 - 1),
        replace(CALL, id="first", at_ms=NOV_20),
        replace(CALL, id="after", at_ms=NOV_21),
        replace(CALL, id="last", at_ms=NOV_21 - 1),
        replace(CALL, id="voided", ending="void"),
        replace(CALL, id="open", ending="open"),
    )
    assert set(found) == {"a", "custom", "first", "last"}
    state = ledger_state(stores.ledger(), OPENAI, (NOV_20, NOV_21))
    assert (state.began_ms, state.open_calls) == (NOV_20 - 1, {"2026-11-20": 1})


def test_what_is_not_known_exactly(stores: Stores) -> None:
    found = read(
        stores,
        replace(CALL, id="guess", ending="estimated", held_nanos=2000),
        replace(CALL, id="over", cost_nanos=900, held_nanos=100),
        replace(CALL, id="lost", ending="unconfirmed", held_nanos=800, logged=False),
        replace(CALL, id="unpriced", priced=False, cost_nanos=0),
    )
    assert (found["guess"].standing, found["guess"].held_nanos, found["guess"].cost_nanos) == (Standing.ESTIMATED, 2000, 700)
    lost = found["lost"]
    assert (lost.standing, lost.cost_nanos, lost.tokens, lost.answered) == (Standing.UNCONFIRMED, 800, Tokens(0, 0, 0, 0), "")
    assert lost.asked == "gpt-4o"
    assert not found["unpriced"].priced


def test_corrections_are_added_to_what_they_correct(stores: Stores) -> None:
    ledger, logs = stores.ledger(), stores.logs()
    lost = replace(CALL, ending="unconfirmed", held_nanos=800)
    write_books(ledger, logs, [replace(lost, id="said"), replace(lost, id="agreed"), replace(lost, id="amount")])
    with ledger.write() as connection:
        confirm(connection, "said", cost_nanos=300, tokens=50)
        confirm(connection, "agreed")
        confirm(connection, "amount", cost_nanos=300, tokens=0)
    found = {call.id: call for call in our_calls(ledger, logs, OPENAI, (NOV_20, NOV_21))}
    assert (found["said"].cost_nanos, found["said"].standing) == (300, Standing.CORRECTED)
    assert (found["amount"].cost_nanos, found["amount"].standing) == (300, Standing.CORRECTED), (
        "its tokens are not zero but unknown"
    )
    assert (found["agreed"].cost_nanos, found["agreed"].standing) == (800, Standing.CORRECTED)


def test_a_settlement_that_came_late_is_exact_again(stores: Stores) -> None:
    from store.ledger.batch import Batch
    from store.ledger.books import Books
    from store.ledger.types import Settlement

    ledger = stores.ledger()
    write_books(ledger, None, [replace(CALL, ending="unconfirmed", held_nanos=800)])
    with ledger.write() as connection:
        batch = Batch(connection, Books(connection, NOV_22), epoch="late", revision=0)
        batch.prepare([], ["a"])
        batch.settle(
            Settlement("a", 700, 110, True, input_tokens=100, output_tokens=10, model="gpt-4o-2024-08-06", price_source="p")
        )
        batch.flush()
    (call,) = our_calls(ledger, None, OPENAI, (NOV_20, NOV_21))
    assert (call.standing, call.cost_nanos, call.answered, call.price_source) == (Standing.EXACT, 700, "gpt-4o-2024-08-06", "p")
    assert call.tokens == Tokens(100, None, None, 10)


def test_classes_that_the_logs_do_not_know(stores: Stores) -> None:
    nothing = replace(CALL, id="none", input=0, output=0, logged=False, cost_nanos=0)
    found = read(stores, replace(CALL, logged=False), nothing, replace(CALL, id="remade", remade=True, priced=False))
    assert found["a"].tokens == found["remade"].tokens == Tokens(100, None, None, 10)
    assert found["remade"].priced
    assert found["none"].tokens == Tokens(0, 0, 0, 0), "without input there was nothing to cache"
    (call,) = read(stores, replace(CALL, id="b", at_ms=NOV_22), span=(NOV_22, NOV_22 + 1), logs=False).values()
    assert call.tokens.cache_read is None


def test_many_calls_in_small_reads(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.reconcile.books.CALLS_AT_ONCE", 3)
    calls = [
        replace(CALL, id=f"c{number}", at_ms=NOV_20 + number, provider=("openai", "gemini")[number % 2]) for number in range(20)
    ]
    assert set(read(stores, *calls)) == {f"c{number}" for number in range(0, 20, 2)}


def test_daily_sums_outlive_the_rows(stores: Stores) -> None:
    ledger, logs = stores.ledger(), stores.logs()
    write_books(ledger, logs, [CALL, replace(CALL, id="b"), replace(CALL, id="c", provider="anthropic")])
    names = Names(["gpt-4o-2024-08-06"])
    found = daily_sums(logs, OPENAI, names, "2026-11-20", "2026-11-20")
    ((key, kept),) = found.items()
    assert key == ("2026-11-20", "gpt-4o-2024-08-06")
    assert (kept.calls, kept.tokens, kept.cost_nanos) == (2, Tokens(200, 60, 10, 20), 1400)
    assert daily_sums(None, OPENAI, names, "2026-11-20", "2026-11-20") == {}


def test_an_empty_ledger(stores: Stores) -> None:
    assert ledger_state(stores.ledger(), OPENAI, (NOV_20, NOV_21)).began_ms is None
    assert read(stores) == {}
