"""How a call is shown beside its traffic: one comment line, a mark, and named values to search by."""

from collections.abc import Sequence

from store.logs.types import CallRow
from store.money import format_usd, plain_usd

MARKS = {"refused": ":no_entry:", "cut": ":scissors:", "error": ":warning:", "cancelled": ":door:", "unconfirmed": ":question:"}

type Value = str | int | bool


def comment_of(row: CallRow) -> str:
    """`workshop-vk-1 · gpt-4o-mini · $0.000123 · 12→48 tok`; a refusal names its status and type instead of a price."""
    parts = [row.virtual_key_name or "no key", row.model or row.operation or row.path]
    if row.status == "refused":
        parts.append(f"{row.http_status} {row.refusal_type}" + (f" ×{row.count}" if row.count > 1 else ""))
    else:
        parts.append(("~" if row.estimated else "") + format_usd(row.cost_nanos) if row.priced else "unpriced")
        parts.append(f"{row.input_tokens}→{row.output_tokens} tok")
    return " · ".join(part for part in parts if part)


def mark_of(row: CallRow) -> str:
    """An emoji name for calls that did not end well; else empty."""
    return MARKS.get(row.status, "")


def metadata_of(
    row: CallRow, *, budgets: Sequence[str] = (), team: str = "", customer: str = "", gateway_path: str = ""
) -> dict[str, Value]:
    """Named values of a call, for filters such as `~meta "^model: gpt-4o"` and for the view of its usage.

    `budgets` names the caps charged; `team` and `customer` are names; `gateway_path` is the path on the gateway's own port that
    makes this call again. Empty values are left out.
    """
    values: dict[str, Value] = {
        "call": row.id,
        "key": row.virtual_key_name,
        "key_id": row.virtual_key_id,
        "team": team or row.team_id,
        "customer": customer or row.customer_id,
        "run": row.run_id,
        "provider": row.provider,
        "model": row.model,
        "answered_model": row.answered_model,
        "operation": row.operation,
        "way_in": row.way_in,
        "status": row.status,
        "budgets": ", ".join(budgets or row.caps_charged),
        "refusal": row.refusal_type,
        "refusal_cap": row.refusal_cap,
        "message": row.message,
        "held_usd": plain_usd(row.held_nanos) if row.held_nanos else "",
        "price_source": row.price_source,
        "stop_reason": row.stop_reason,
        "gateway_path": gateway_path,
    }
    kept = {name: value for name, value in values.items() if value}
    kept |= {"count": row.count} if row.count > 1 else {}
    if row.status != "refused":
        kept |= {
            "cost_usd": plain_usd(row.cost_nanos) if row.priced else "unknown",
            "estimated": row.estimated,
            "input_tokens": row.input_tokens,
            "output_tokens": row.output_tokens,
            "cache_read_tokens": row.cache_read_tokens,
            "cache_write_tokens": row.cache_write_tokens,
            "reasoning_tokens": row.reasoning_tokens,
            "latency_ms": row.latency_ms,
        }
        if row.first_token_ms is not None:
            kept["first_token_ms"] = row.first_token_ms
    return kept
