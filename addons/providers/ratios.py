"""How many tokens a byte of text is at most, before a model's own calls have shown it."""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

TOKENS_PER_BYTE_DEFAULT = Fraction(1, 2)
TOKENS_PER_BYTE_P99: Mapping[str, Fraction] = MappingProxyType({})
"""Dialect → the 99th percentile of input tokens per `RequestFacts.text_bytes`; absent: TOKENS_PER_BYTE_DEFAULT."""


def tokens_per_byte(dialect: str) -> Fraction:
    """The ratio to start from for a model nothing is known of yet."""
    return TOKENS_PER_BYTE_P99.get(dialect, TOKENS_PER_BYTE_DEFAULT)
