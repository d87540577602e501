"""JSON text with exact decimals: money is printed as plain digits, never through a float and never with an exponent."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import orjson


def dumps(value: Any) -> bytes:
    """JSON of plain values and Decimals. Raises TypeError for anything else."""
    return orjson.dumps(value, default=_decimal)


def with_fragments(value: Any) -> Any:
    """The same value with Decimals as ready-made JSON, for callers that use `orjson.dumps` by itself."""
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, Mapping):
        return {key: with_fragments(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_fragments(item) for item in value]
    return value


def _decimal(value: Any) -> orjson.Fragment:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise TypeError(f"{type(value).__name__} has no place in JSON")
    return orjson.Fragment(format(value, "f"))
