"""Bifrost's paging: which page a request asks for, and the envelope a list comes in."""

from collections.abc import Sequence
from typing import Any

from tornado.web import RequestHandler

from store.errors import UserError

DEFAULT_LIMIT = 25
MAX_LIMIT = 100


def whole_number(handler: RequestHandler, name: str, default: int) -> int:
    """A query parameter that is a whole number and not negative. Raises UserError."""
    text = handler.get_query_argument(name, None)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise UserError(f"{name}: must be a whole number, not negative")
    return int(text)


def page_asked(handler: RequestHandler, *filters: str) -> tuple[int, int] | None:
    """(limit, offset) when the request pages or filters, else None: everything. Raises UserError."""
    if not any(handler.get_query_argument(name, None) is not None for name in ("limit", "offset", *filters)):
        return None
    limit = whole_number(handler, "limit", DEFAULT_LIMIT)
    return min(limit or DEFAULT_LIMIT, MAX_LIMIT), whole_number(handler, "offset", 0)


def list_envelope(
    name: str, items: Sequence[Any], *, total: int | None = None, limit: int | None = None, offset: int = 0
) -> dict[str, Any]:
    """`{name: […], count, total_count, limit, offset}`."""
    all_of_them = len(items) if total is None else total
    return {
        name: items,
        "count": len(items),
        "total_count": all_of_them,
        "limit": all_of_them if limit is None else limit,
        "offset": offset,
    }
