"""`status`: budgets as a table or as JSON, with the time at which each runs out at its present pace."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from addons.process.client import Json, RunningGateway
from addons.process.text import nanos_of, rounded_usd, span, table, usd
from store.clock import iso_utc, ms_from_iso
from store.money import plain_usd


def runs_out_at(budget: Json, now_ms: int) -> int | None:
    """When the rest of the budget is gone if spending goes on as it did since the window began; None: not before the reset.

    None as well when nothing was spent, or when it is not known since when. A budget without a rest has run out now.
    """
    used, rest = nanos_of(budget.get("current_usage", 0)), _remaining_nanos(budget)
    if rest <= 0:
        return now_ms
    began = _moment(budget.get("last_reset"))
    if used <= 0 or began is None or now_ms <= began:
        return None
    at_ms = now_ms + rest * (now_ms - began) // used
    resets = _moment(budget.get("resets_at"))
    return None if resets is not None and at_ms >= resets else at_ms


def budget_table(budgets: Sequence[Json], now_ms: int) -> str:
    """One line per budget."""
    if not budgets:
        return "no budgets yet: tollgate budgets create NAME --limit 50usd/1d --key KEY makes one\n"
    headers = ["BUDGET", "OWNER", "SPENT", "HELD", "LIMIT", "WINDOW", "STATE", "RESETS IN", "RUNS OUT"]
    return table(headers, [_row(budget, now_ms) for budget in budgets])


def status_text(app_dir: Path, running: RunningGateway | None, budgets: Sequence[Json], now_ms: int) -> str:
    """The whole page."""
    if running is None:
        head = f"stopped: no gateway runs in {app_dir}\n"
    else:
        workers = f", workers {running.workers}" if running.workers else ""
        head = f"running: gateway {running.gateway}, dashboard {running.console}, process {running.pid}{workers}\n"
    return head + "\n" + budget_table(budgets, now_ms)


def status_json(running: RunningGateway | None, budgets: Sequence[Json], now_ms: int) -> dict[str, Any]:
    """The same for programs; amounts are exact decimals of USD as text, times RFC 3339."""
    gateway = None
    if running is not None:
        gateway = {
            "pid": running.pid, "gateway": running.gateway, "console": running.console, "inspector": running.inspector,
            "version": running.version, "started_at": running.started_at, "workers": running.workers,
        }  # fmt: skip
    return {"running": running is not None, "gateway": gateway, "budgets": [_exact(budget, now_ms) for budget in budgets]}


def _exact(budget: Json, now_ms: int) -> dict[str, Any]:
    out_ms = runs_out_at(budget, now_ms)
    raised = budget.get("override")
    return {
        "id": budget["id"],
        "name": budget.get("name"),
        "scope": budget.get("scope"),
        "scope_id": budget.get("scope_id"),
        "scope_name": budget.get("scope_name"),
        "limit_usd": plain_usd(nanos_of(_limit(budget))),
        "used_usd": plain_usd(nanos_of(budget.get("current_usage", 0))),
        "held_usd": plain_usd(nanos_of(budget.get("held", 0))),
        "remaining_usd": plain_usd(_remaining_nanos(budget)),
        "reset_duration": budget.get("reset_duration"),
        "resets_at": budget.get("resets_at"),
        "raised_usd": plain_usd(nanos_of(raised["amount"])) if raised else None,
        "raised_until": raised["until"] if raised else None,
        "enforcement": budget.get("enforcement"),
        "state": _state(budget),
        "runs_out_at": iso_utc(out_ms) if out_ms is not None else None,
    }


def _scope_word(budget: Json) -> str:
    """Before the owner's name; that of a model inside a virtual key begins with the key's: `virtual key robot on o3`."""
    return str(budget.get("scope") or "").removesuffix("_model").replace("_", " ")


def _row(budget: Json, now_ms: int) -> list[str]:
    resets = _moment(budget.get("resets_at"))
    out_ms = runs_out_at(budget, now_ms)
    if out_ms is None:
        out = "not before the reset" if resets is not None else "-"
    else:
        out = f"in {span(out_ms - now_ms)}" if out_ms > now_ms else "now"
    return [
        str(budget.get("name") or budget["id"]),
        f"{_scope_word(budget)} {budget.get('scope_name') or budget.get('scope_id') or ''}".strip(),
        rounded_usd(nanos_of(budget.get("current_usage", 0))),
        rounded_usd(nanos_of(budget.get("held", 0))),
        usd(_limit(budget)),
        str(budget.get("reset_duration") or "prepaid"),
        _state(budget) + _raised_words(budget, now_ms),
        span(resets - now_ms) if resets is not None else "never",
        out,
    ]


def _state(budget: Json) -> str:
    if _remaining_nanos(budget) <= 0:
        return {"observe": "over", "soft": "used up"}.get(str(budget.get("enforcement")), "used up")
    return "active"


def _raised_words(budget: Json, now_ms: int) -> str:
    until = _moment((budget.get("override") or {}).get("until"))
    return "" if until is None else f", raised for {span(until - now_ms)}"


def _remaining_nanos(budget: Json) -> int:
    if budget.get("remaining") is not None:
        return nanos_of(budget["remaining"])
    spent = nanos_of(budget.get("current_usage", 0)) + nanos_of(budget.get("held", 0))
    return max(0, nanos_of(_limit(budget)) - spent)


def _limit(budget: Json) -> Any:
    """The limit in force, with what was carried over or added for this window, and with a raise."""
    return budget.get("effective_max_limit", budget["max_limit"])


def _moment(text: Any) -> int | None:
    try:
        return ms_from_iso(text) if isinstance(text, str) else None
    except ValueError:
        return None
