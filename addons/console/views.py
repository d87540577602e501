"""mitmproxy content view "LLM usage": what a call used and what it cost, from the flow's metadata."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mitmproxy import contentviews

_WHO = (
    ("call", "call"),
    ("virtual key", "key"),
    ("team", "team"),
    ("customer", "customer"),
    ("run", "run"),
)
_WHAT = (
    ("provider", "provider"),
    ("model", "model"),
    ("answered by", "answered_model"),
    ("operation", "operation"),
    ("status", "status"),
    ("identical calls", "count"),
    ("stop reason", "stop_reason"),
    ("refused", "refusal"),
    ("refusing budget", "refusal_cap"),
    ("message", "message"),
)
_TOKENS = (
    ("input tokens", "input_tokens"),
    ("  read from cache", "cache_read_tokens"),
    ("  written to cache", "cache_write_tokens"),
    ("output tokens", "output_tokens"),
    ("  reasoning", "reasoning_tokens"),
)
_TIMES = (("latency", "latency_ms"), ("first token after", "first_token_ms"))
_BODIES = (("request body", "request_body"), ("response body", "response_body"))


class UsageView(contentviews.Contentview):
    """Shows the priced usage of a governed call, whichever of its messages is looked at."""

    name = "LLM usage"
    syntax_highlight = "yaml"

    def prettify(self, data: bytes, metadata: contentviews.Metadata) -> str:
        """One `name: value` line each. Raises ValueError for a flow that is no call."""
        values = usage_values(metadata.flow.metadata) if metadata.flow is not None else {}
        if "call" not in values:
            raise ValueError("this flow is not a call to a model")
        return "\n".join(usage_lines(values)) + "\n"

    def render_priority(self, data: bytes, metadata: contentviews.Metadata) -> float:
        """Never chosen by itself: whoever opens a message wants to read the message first."""
        return -1


def usage_values(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The named values of a call: in the inspector they are the flow's metadata, in the stock tools a part of it."""
    nested = metadata.get("tollgate")
    return nested if isinstance(nested, Mapping) else metadata


def usage_lines(values: Mapping[str, Any]) -> Iterator[str]:
    """The view's lines; what is not known is left out."""
    rows = [
        *_known(values, _WHO),
        *_known(values, _WHAT),
        *_known(values, _TOKENS),
        *_money(values),
        *((label, f"{value} ms") for label, value in _known(values, _TIMES)),
        *_known(values, _BODIES),
    ]
    width = max((len(label) for label, _ in rows), default=0) + 1
    for label, value in rows:
        yield f"{label + ':':<{width}} {value}"


def register() -> None:
    """Make the view known to mitmproxy; may be called again."""
    contentviews.add(UsageView())


def _known(values: Mapping[str, Any], names: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for label, name in names:
        value = values.get(name)
        if value is not None and value != "":
            yield label, str(value)


def _money(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    cost = values.get("cost_usd")
    if cost == "unknown":
        yield "cost", "unknown: no price is known for this model"
    elif cost is not None:
        yield "cost", f"${cost}" + (" (partly estimated)" if values.get("estimated") else "")
    if values.get("held_usd"):
        yield "held before", f"${values['held_usd']}"
    if values.get("price_source"):
        yield "price from", str(values["price_source"])
    if values.get("budgets"):
        yield "budgets", str(values["budgets"])
