"""Which virtual keys have spent most: the order of a list by what was spent, without the caps of all of them being made."""

from store.config_store.read import KeyQuery, key_ids
from store.database import Connection
from store.ledger.rows import NO_WINDOW
from store.ledger.types import Scope, Unit
from store.windows import Window, check_window


def key_ids_by_spent(connection: Connection, ledger: Connection, query: KeyQuery, now_ms: int) -> list[str]:
    """Ids of every key that the query finds, by what they have spent, then in the order of their making.

    A key's spending is the largest current usage among its own budgets: with several windows that is the longest one's, as a
    rule, and no dollar is counted twice. A key without a budget has spent nothing.
    """
    spent = spent_nanos(ledger, now_ms)
    return sorted(key_ids(connection, query), key=lambda key_id: spent.get(key_id, 0), reverse=query.descending)


def spent_nanos(ledger: Connection, now_ms: int) -> dict[str, int]:
    """Virtual key id → the largest amount used, in nano-dollars, of its budgets' windows at this instant; above 0 only.

    Budgets cut alike are asked for at once, with the start of the running window as the database can say it (`windows.Window.at`).
    """
    spent: dict[str, int] = {}
    binding = (Scope.VIRTUAL_KEY.value, Unit.USD.value)
    cuts = ledger.execute(
        f'SELECT DISTINCT "window", calendar_aligned, timezone, quarter_start_month FROM caps AS c WHERE {_BINDING}', binding
    )
    for text, aligned, timezone, quarter in cuts:
        window = check_window(text, calendar_aligned=bool(aligned), timezone=timezone, quarter_start_month=quarter)
        start, values = _running(window, now_ms)
        same = '"window" IS NULL' if text is None else '"window" = ?'
        found = ledger.execute(
            f"SELECT c.scope_id, b.used FROM caps AS c JOIN balances AS b ON b.cap_id = c.id AND b.window_start_ms = {start} "
            f"WHERE {_BINDING} AND {same} AND calendar_aligned = ? AND timezone = ? AND quarter_start_month = ? AND b.used > 0",
            (*values, *binding, *(() if text is None else (text,)), aligned, timezone, quarter),
        )
        for key_id, used in found:
            if used > spent.get(key_id, 0):
                spent[key_id] = used
    return spent


_BINDING = "c.scope = ? AND c.unit = ? AND c.deleted = 0"


def _running(window: Window | None, now_ms: int) -> tuple[str, tuple[int, ...]]:
    """The start of the running window of a cap `c` in SQL, and its values: one instant, or by the cap's age."""
    if window is None:
        return "?", (NO_WINDOW,)
    if window.calendar_aligned:
        return "?", (window.at(now_ms, 0)[0],)
    length_ms = window.duration.ms
    return "c.created_ms + (? - c.created_ms) / ? * ?", (now_ms, length_ms, length_ms)
