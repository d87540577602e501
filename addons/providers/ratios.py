"""How many tokens a byte of text is at most, before a model's own calls have shown it."""

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

TOKENS_PER_BYTE_DEFAULT = Fraction(1, 2)
TOKENS_PER_BYTE_P99: Mapping[str, Fraction] = MappingProxyType(
    {
        "openai_chat": TOKENS_PER_BYTE_DEFAULT,
        "openai_responses": TOKENS_PER_BYTE_DEFAULT,
        "openai_embeddings": TOKENS_PER_BYTE_DEFAULT,
        "anthropic": TOKENS_PER_BYTE_DEFAULT,
        "gemini": TOKENS_PER_BYTE_DEFAULT,
    }
)
"""Dialect → the 99th percentile of input tokens per `RequestFacts.text_bytes`."""


def tokens_per_byte(dialect: str) -> Fraction:
    """The ratio to start from for a model nothing is known of yet."""
    return TOKENS_PER_BYTE_P99.get(dialect, TOKENS_PER_BYTE_DEFAULT)
