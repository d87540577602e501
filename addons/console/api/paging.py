"""Bifrost's paging: which page a request asks for, what stands in a query, and the envelope a list comes in."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, WithJsonSchema

from store.config_store.specs import Spec

DEFAULT_LIMIT = 25
MAX_LIMIT = 100
_LONGEST_NUMBER = 12


def read_whole(value: Any) -> Any:
    """Text of a query, or a number of a body, as a whole number. Raises ValueError."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST_NUMBER):
            raise ValueError("must be a whole number, not negative")
        return int(value)
    if isinstance(value, bool) or (isinstance(value, int) and not 0 <= value < 10**_LONGEST_NUMBER):  # of a JSON body
        raise ValueError("must be a whole number, not negative")
    return value


def read_flag(value: Any) -> Any:
    """`true` or `false`. Raises ValueError."""
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise ValueError("must be true or false")
        return value == "true"
    return value


Whole = Annotated[int | None, BeforeValidator(read_whole), WithJsonSchema({"type": "integer", "minimum": 0})]
"""A query parameter that is a whole number and not negative."""
Flag = Annotated[bool, BeforeValidator(read_flag), WithJsonSchema({"type": "boolean"})]
"""A query parameter that is `true` or `false`."""


class PageQuery(Spec):
    """`limit` and `offset`. A request with neither of them, nor a filter, gets everything."""

    filters: ClassVar[frozenset[str]] = frozenset()
    """Parameters that ask for a page as `limit` does."""

    limit: Whole = None
    """0 is 25; more than 100 is 100."""
    offset: Whole = None

    def page(self) -> tuple[int | None, int]:
        """(limit, offset); the limit is None for everything."""
        if not {"limit", "offset", *self.filters}.intersection(self.model_fields_set):
            return None, 0
        return min(self.limit or DEFAULT_LIMIT, MAX_LIMIT), self.offset or 0


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
