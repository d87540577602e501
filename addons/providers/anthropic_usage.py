"""Anthropic's usage objects in the normal form: cumulative counts, cache lifetimes, and iterations by other models."""

from typing import Any

from addons.providers.counters import subset, text_of, totals, whole
from store.usage import Usage

type Further = tuple[tuple[str | None, Usage], ...]
"""(model, usage) of parts billed beside the main usage."""

MAX_ITERATIONS = 1000
"""Entries of `usage.iterations` that are priced one by one; what is beyond is added to the last."""


def merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The counts after another event: each is cumulative, the last one that says something wins.

    What only the first event reports (how long cache entries live) stays. A value that is no counter does not
    displace one that is.
    """
    result = dict(before)
    for key, value in now.items():
        if value is None:
            continue
        if key.endswith("_tokens") and whole(value) is None and whole(before.get(key)) is not None:
            continue
        result[key] = value
    return result


def usage_and_further(usage: dict[str, Any], model: str | None) -> tuple[Usage | None, tuple[tuple[str | None, Usage], ...]]:
    """The usage of the main model, and that of everything billed beside it.

    Compactions and advisors are not in the top-level counts. Entries of `message` kind and answers of a fallback
    model are; what the top level has more than these is the main model's.
    """
    top = _plain(usage, searches=True)
    iterations = usage.get("iterations")
    if type(iterations) is not list or not iterations:
        return top, ()
    further: list[tuple[str | None, Usage]] = []
    inside = Usage()
    own = Usage()
    for entry in iterations[:MAX_ITERATIONS]:
        part = _plain(entry, searches=False) if type(entry) is dict else None
        if part is None:
            continue
        kind, name = entry.get("type"), text_of(entry.get("model"))
        foreign = name is not None and name != model
        if kind in ("message", "fallback_message"):
            inside = _plus(inside, part)
            if foreign:
                further.append((name, part))
            else:
                own = _plus(own, part)
        else:
            further.append((name if foreign else None, part))
    if top is None:
        return (own if own != Usage() else None), tuple(further)
    return _plus(own, _beyond(top, inside)), tuple(further)


def _plain(usage: dict[str, Any], searches: bool) -> Usage | None:
    main = totals(usage, ("input_tokens",), ("output_tokens",), ("cache_creation_input_tokens",), ("cache_read_input_tokens",))
    if main is None:
        return None
    fresh, output_tokens, written, read = main
    lifetimes = usage.get("cache_creation")
    hour, minutes = subset(lifetimes, "ephemeral_1h_input_tokens"), subset(lifetimes, "ephemeral_5m_input_tokens")
    written = max(written, hour + minutes)
    return Usage(
        input_tokens=fresh + written + read,
        output_tokens=output_tokens,
        cache_read_tokens=read,
        cache_write_tokens=written,
        # Later events raise the sum without saying for how long: with any hour-long entry the rest is taken for one.
        cache_write_1h_tokens=written - minutes if hour else 0,
        reasoning_tokens=subset(usage.get("output_tokens_details"), "thinking_tokens"),
        web_searches=subset(usage.get("server_tool_use"), "web_search_requests") if searches else 0,
    )


def _plus(one: Usage, other: Usage) -> Usage:
    return _combined(one, other, lambda a, b: a + b)


def _beyond(whole_usage: Usage, part: Usage) -> Usage:
    return _combined(whole_usage, part, lambda a, b: max(0, a - b))


def _combined(one: Usage, other: Usage, combine: Any) -> Usage:
    return Usage(*(combine(getattr(one, name), getattr(other, name)) for name in Usage.__slots__))
