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
        "anthropic": Fraction(13, 20),
        "gemini": TOKENS_PER_BYTE_DEFAULT,
    }
)
"""Dialect → the 99th percentile of input tokens per `RequestFacts.text_bytes`, rounded up.

Measured with `bench/tokens_per_byte.py` on 312 recorded request bodies of natural text (prose, code, JSON, logs):
0.485 chat, 0.487 responses, 0.485 Gemini with the o200k vocabulary, 0.631 for Claude (the same count × 1.3). Dense text (base64,
hex, random) reaches 0.75 and 0.97: a cap with `strict` holds one token per byte instead.
"""
