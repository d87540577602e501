"""From files to a report, on real stores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import UserError
from store.ledger.seal import prune
from store.reconcile.reconcile import Books, reconcile_files
from store.reconcile.types import DAY_MS, Cause, Report, Verdict
from tests.store.logs.stores import Stores
from tests.store.reconcile.exports_here import NOV_20, NOV_21, NOV_22
from tests.support import exports
from tests.support.exports import Billed
from tests.support.made_books import Called, write_books

DAYS = ["2026-11-20", "2026-11-21"]
BILLED = [
    Billed(NOV_20 + 5_000_000, "gpt-4o-2024-08-06", 100, 10, 30, nanos={"fresh": 250_000, "cache_read": 37_500, "output": 100_000}),
    Billed(NOV_21 - 30_000, "gpt-4o-2024-08-06", 50, 5, nanos={"fresh": 125_000, "output": 50_000}),
]


class Now:
    """A clock that stands."""

    def now_ms(self) -> int:
        return NOV_22

    def monotonic(self) -> float:
        return 0.0


def compared(tmp_path: Path, calls: list[Called], asked: tuple[int | None, int | None] = (None, None)) -> Report:
    tmp_path.mkdir(exist_ok=True)
    stores = Stores(tmp_path)
    try:
        ledger, logs = stores.ledger(), stores.logs()
        write_books(ledger, logs, calls)
        paths = [tmp_path / "usage.json", tmp_path / "costs.json"]
        for path, pages in zip(paths, (exports.openai_usage(BILLED, DAYS), exports.openai_costs(BILLED, DAYS)), strict=True):
            path.write_text(json.dumps(pages))
        books = Books(ledger, logs, frozenset({"openai"}))
        return reconcile_files(books, paths, None, clock=Now(), price_of=lambda model, at_ms: None, asked=asked)
    finally:
        stores.close()


CALLS = [
    Called("a", NOV_20 + 5_000_000, "gpt-4o", 130, 10, answered="gpt-4o-2024-08-06", cache_read=30, cost_nanos=387_500),
    Called("b", NOV_21 - 30_000, "gpt-4o", 50, 5, answered="gpt-4o-2024-08-06", cost_nanos=175_000),
]


def test_books_and_export_agree(tmp_path: Path) -> None:
    made = compared(tmp_path, CALLS)
    assert made.exact
    assert [(row.day, row.ours.cost_nanos) for row in made.rows] == [("2026-11-20", 562_500)]


def test_a_call_that_began_before_the_compared_time_may_be_counted_in_it(tmp_path: Path) -> None:
    late = replace(CALLS[1], at_ms=NOV_21 + 1000, took_ms=2000)
    made = compared(tmp_path, [CALLS[0], late])
    assert made.agrees and not made.exact
    early = replace(CALLS[0], at_ms=NOV_20 - 1000, took_ms=5000)
    assert compared(tmp_path / "other", [early, CALLS[1]]).agrees


def test_rows_that_the_ledger_has_pruned_are_told_from_the_logs_daily_sums(tmp_path: Path) -> None:
    compared(tmp_path, CALLS)
    stores = Stores(tmp_path)
    with stores.ledger().write() as connection:
        gone, _ = prune(connection, before_ms=NOV_22)
    stores.close()
    assert gone == 1, "the newest post stays"
    (row,) = compared(tmp_path, []).rows
    assert row.verdict is Verdict.DIFFERS
    assert [finding.cause for finding in row.findings] == [Cause.OUTSIDE, Cause.BEFORE_LEDGER, Cause.PRUNED]
    assert "daily sums still have 2 calls with 180 input, 30 cache read, 15 output tokens, $0.0005625" in row.findings[-1].text


def test_only_what_was_asked_about(tmp_path: Path) -> None:
    assert compared(tmp_path, [], (NOV_21, None)).rows == ()
    assert [row.day for row in compared(tmp_path / "2", [], (None, NOV_21)).rows] == ["2026-11-20"]
    assert compared(tmp_path / "3", [], (NOV_21, NOV_21 + 3 * DAY_MS)).uncovered_days == ("2026-11-22", "2026-11-23")
    with pytest.raises(UserError, match="covers 2026-11-20 to 2026-11-21, and nothing of the days asked about"):
        compared(tmp_path / "4", [], (NOV_22, None))
