"""JSON text with exact decimals: money is printed as plain digits, never through a float and never with an exponent."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def dumps(value: Any) -> str:
    """JSON of plain values, mappings, sequences and Decimals. Raises TypeError for anything else."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts)


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise TypeError(f"{value} has no place in JSON")
        parts.append(format(value, "f"))
    elif isinstance(value, Mapping):
        _write_mapping(value, parts)
    elif isinstance(value, list | tuple):
        parts.append("[")
        for index, item in enumerate(value):
            if index:
                parts.append(",")
            _write(item, parts)
        parts.append("]")
    elif isinstance(value, float):
        # repr may use an exponent; the decimal of the same digits does not.
        parts.append(json.dumps(value, allow_nan=False) if value == int(value) else format(Decimal(repr(value)), "f"))
    else:
        parts.append(json.dumps(value, ensure_ascii=False))


def _write_mapping(value: Mapping[Any, Any], parts: list[str]) -> None:
    parts.append("{")
    for index, (key, item) in enumerate(value.items()):
        if not isinstance(key, str):
            raise TypeError(f"the key {key!r} is not text")
        if index:
            parts.append(",")
        parts.append(json.dumps(key, ensure_ascii=False))
        parts.append(":")
        _write(item, parts)
    parts.append("}")
