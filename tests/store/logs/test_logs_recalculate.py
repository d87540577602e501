"""Figures beside the cost: what is priced, what is passed over, and that no sum and no cost moves."""

import pytest

from store.clock import SystemClock
from store.database import Database
from store.errors import StoreUnavailable
from store.logs.filters import LogFilter
from store.logs.queries import LogReader
from store.logs.recalculate import Progress, recalculate
from store.logs.types import CallRow
from store.logs.writer import LogWriter

NOON_MS = 1_795_435_200_000
UNPRICED = LogFilter(unpriced_only=True)


def call(number: int, **fields: object) -> CallRow:
    values: dict[str, object] = {
        "id": f"c-{number:05d}", "at_ms": NOON_MS + number, "status": "success", "http_status": 200, "provider": "house",
        "model": "m", "input_tokens": 10, "output_tokens": number, "priced": False,
    }  # fmt: skip
    return CallRow(**(values | fields))  # type: ignore[arg-type]


def filled(database: Database, rows: list[CallRow]) -> LogReader:
    writer = LogWriter(database, clock=SystemClock())
    writer.start()
    for row in rows:
        writer.add(row)
    writer.close()
    return LogReader(database)


def a_dollar_a_token(row: CallRow) -> tuple[int, str] | None:
    return None if row.model == "nobody's" else (row.output_tokens * 10**9, "test prices")


def run(database: Database, given: LogFilter = UNPRICED, **more: object) -> Progress:
    progress = Progress()
    recalculate(database, given, a_dollar_a_token, progress, **more)  # type: ignore[arg-type]
    return progress


def test_only_the_figure_changes(database: Database) -> None:
    rows = [
        call(1), call(2, model="nobody's"), call(3, priced=True, cost_nanos=77, price_source="then"),
        call(4, status="refused", refusal_type="budget_exceeded"),
    ]  # fmt: skip
    reader = filled(database, rows)
    before = reader.stats()
    assert run(database) == Progress(total=2, processed=2, updated=1, unpriceable=1)
    found = {row.id: row for row in reader.recent()}
    assert (found["c-00001"].recalculated_nanos, found["c-00001"].recalculated_source) == (10**9, "test prices")
    assert (found["c-00001"].cost_nanos, found["c-00001"].priced, found["c-00001"].price_source) == (0, False, "")
    assert [found[f"c-0000{number}"].recalculated_nanos for number in (2, 3, 4)] == [None] * 3
    assert reader.stats() == before and before.unpriced == 2


def test_a_second_run_finds_it_done(database: Database) -> None:
    filled(database, [call(1), call(2)])
    assert run(database).updated == 2
    assert run(database) == Progress(total=2, processed=2, skipped=2)


def test_every_call_when_asked_for_but_never_a_refused_one(database: Database) -> None:
    reader = filled(database, [call(1), call(3, priced=True, cost_nanos=77), call(4, status="refused")])
    assert run(database, LogFilter()) == Progress(total=3, processed=3, updated=2, skipped=1)
    (row,) = [row for row in reader.recent() if row.id == "c-00003"]
    assert (row.cost_nanos, row.recalculated_nanos) == (77, 3 * 10**9)


def test_conditions_and_a_limit(database: Database) -> None:
    filled(database, [call(number, provider="a" if number % 2 else "b") for number in range(20)])
    assert run(database, LogFilter(unpriced_only=True, providers=("a",), start_ms=NOON_MS + 10)).updated == 5
    assert run(database, at_most=3) == Progress(total=3, processed=3, updated=3)


def test_many_pieces_and_a_stop_between_them(database: Database) -> None:
    reader = filled(database, [call(number) for number in range(1_234)])
    progress = Progress()
    recalculate(database, UNPRICED, a_dollar_a_token, progress, lambda: progress.processed >= 500)
    assert (progress.total, progress.processed, progress.updated) == (1_234, 500, 500)
    assert run(database) == Progress(total=1_234, processed=1_234, updated=734, skipped=500)
    assert all(row.recalculated_nanos == row.output_tokens * 10**9 for row in reader.recent(1_000))


def test_a_price_that_cannot_be_had_stops_it_with_what_is_done(database: Database) -> None:
    filled(database, [call(number) for number in range(600)])
    progress = Progress()

    def fails_later(row: CallRow) -> tuple[int, str]:
        if row.id >= "c-00550":
            raise StoreUnavailable("gone")
        return 1, "x"

    with pytest.raises(StoreUnavailable):
        recalculate(database, UNPRICED, fails_later, progress)
    assert progress.updated == 500
