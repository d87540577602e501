"""What people do to the ledger by hand beside the configuration: temporary raises, and a word on unconfirmed calls."""

from store.clock import iso_utc
from store.config_store.change_caps import find_budget
from store.config_store.store import ConfigStore
from store.errors import Conflict, UserError
from store.ledger.history import confirm, posts_of
from store.ledger.raises import end_raise, raise_cap
from store.ledger.rows import MAX_AMOUNT
from store.money import usd_from_nanos


def raise_budget(
    store: ConfigStore,
    cap_id: str,
    *,
    by_nanos: int | None = None,
    to_nanos: int | None = None,
    until_ms: int | None = None,
    for_ms: int | None = None,
    reason: str = "",
) -> None:
    """Raise a budget's limit by an amount or to one, until an instant or for a while, by a row with a reason.

    A raise that is in force is replaced. Raises NotFound, UserError.
    """
    if (until_ms is None) == (for_ms is None):
        raise UserError("until: say until when the limit is raised, or for how long with duration")
    with store.editing("raise", "budget", cap_id, reason=reason, spending=True) as edit:
        connection = edit.connection
        find_budget(connection, cap_id)
        ends_ms = until_ms if until_ms is not None else connection.now_ms() + (for_ms or 0)
        try:
            raise_cap(connection, cap_id, by=by_nanos, to=to_nanos, until_ms=ends_ms, reason=reason or "raised by hand")
        except ValueError as error:
            raise UserError(f"override: {error}") from None
        amount = {"amount": usd_from_nanos(by_nanos)} if by_nanos is not None else {"max_limit": usd_from_nanos(to_nanos or 0)}
        edit.details = {**amount, "until": iso_utc(ends_ms)}


def unraise_budget(store: ConfigStore, cap_id: str, reason: str) -> None:
    """Take a raise back before its time; what was granted stays granted. Raises NotFound when there is none."""
    with store.editing("unraise", "budget", cap_id, reason=reason, spending=True) as edit:
        find_budget(edit.connection, cap_id)
        end_raise(edit.connection, cap_id, reason or "taken back by hand")


def confirm_call(store: ConfigStore, call_id: str, cost_nanos: int | None, tokens: int | None, reason: str) -> None:
    """Settle an unconfirmed call for good: as it was posted, or at the cost and tokens given.

    Raises NotFound for a call that is not unconfirmed, Conflict for one that was confirmed before, UserError.
    """
    if any(amount is not None and not 0 <= amount <= MAX_AMOUNT for amount in (cost_nanos, tokens)):
        raise UserError("cost, tokens: must not be negative, nor more than the ledger can hold")
    if not reason.strip():
        raise UserError("reason: must say why; it is kept in the ledger beside the correction")
    with store.writing() as connection:
        if len(posts_of(connection, call_id)) > 1:
            raise Conflict(f"the call {call_id!r} was confirmed or corrected before; nothing was changed")
        before = posts_of(connection, call_id)
        confirm(connection, call_id, cost_nanos=cost_nanos, tokens=tokens, reason=reason.strip())
        posted, cost = (sum(record.cost_nanos for record in records) for records in (before, posts_of(connection, call_id)))
        details = {"posted": usd_from_nanos(posted), "cost": usd_from_nanos(cost)}
        store.note(connection, "confirm", "call", call_id, details=details, reason=reason.strip())
