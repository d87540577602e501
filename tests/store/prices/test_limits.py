"""Limits of models under the names callers use, and the vendored table itself."""

import hashlib
import re

import orjson
import pytest

from store.prices.book import PriceBook
from store.prices.data import make_limits
from store.prices.limits import CACHED_MODELS, TABLE, LimitsBook, read_table
from store.prices.types import ModelLimits

LIMITS = LimitsBook.load(PriceBook.load())


@pytest.mark.parametrize(
    "provider, model, context, output",
    [
        ("openai", "gpt-4o-mini", 128_000, 16_384),
        ("openai", "GPT-4o-2099-01-01", 128_000, 16_384),
        ("openai", "gpt-5", 400_000, 128_000),  # the table has the input alone, the price data the whole window
        ("anthropic", "claude-opus-4-5-20251101", 200_000, 64_000),
        ("anthropic", "claude-opus-5-5", 1_000_000, 128_000),
        ("gemini", "models/gemini-2.5-pro", 1_048_576, 65_536),
        ("vertex", "claude-sonnet-4-5@20250929", 200_000, 64_000),
        ("bedrock", "us.anthropic.claude-opus-4-5-20251101-v1:0", 200_000, 64_000),
        ("bedrock", "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-5-20251101-v1:0", 200_000, 64_000),
        ("openrouter", "google/gemini-2.5-pro:free", 1_048_576, 65_536),
        ("azure", "gpt-4o", 128_000, 16_384),
        ("openai", "text-embedding-3-small", 8192, None),
        ("anthropic", "claude-fable-5-2", 1_000_000, None),  # newer than the table
    ],
)
def test_known_models(provider: str, model: str, context: int, output: int | None) -> None:
    assert LIMITS.limits(provider, model) == ModelLimits(context, output)


@pytest.mark.parametrize("model", ["", "no-such-model", "x" * 10_000, "-2025-01-01", "@", "/", ":", "a/", "/a:b"])
def test_unknown_models_have_no_limits(model: str) -> None:
    assert LIMITS.limits("openai", model) == ModelLimits()
    assert LIMITS.limits("nobody", model) == ModelLimits()


def test_the_cache_is_bounded() -> None:
    limits = LimitsBook.load(PriceBook.load())
    for number in range(CACHED_MODELS + 100):
        limits.limits("anthropic", f"nobody-{number}")
    assert limits._cached.cache_info().currsize <= CACHED_MODELS


def test_the_vendored_table_is_the_documented_one_and_small() -> None:
    content = TABLE.read_bytes()
    assert len(content) < 150_000
    digest = hashlib.sha256(content).hexdigest()
    assert digest in (TABLE.parent / "README.md").read_text()
    assert "Berri AI" in (TABLE.parent / "NOTICE").read_text()
    assert re.search(r"litellm 1\.\d+\.\d+", orjson.loads(content)["source"])


def test_every_figure_of_the_table_is_a_positive_whole_number() -> None:
    table = read_table(TABLE.read_bytes())
    figures = [figure for models in table.values() for pair in models.values() for figure in pair if figure is not None]
    assert len(figures) > 2000 and all(isinstance(figure, int) and figure > 0 for figure in figures)


def test_one_id_in_two_modes_gets_the_larger_figures() -> None:
    content = orjson.dumps({"limits": {"p": {"chat": {"m": [10, None]}, "responses": {"m": [5, 7]}}}})
    assert read_table(content) == {"p": {"m": (10, 7)}}


def test_making_the_table_keeps_what_it_should() -> None:
    source: dict[str, dict[str, object]] = {
        "gpt-x": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": 10.0, "max_output_tokens": 5},
        "gemini/g-x": {"litellm_provider": "gemini", "mode": "chat", "max_input_tokens": 7},
        "vertex_ai/c-x@1": {"litellm_provider": "vertex_ai-anthropic_models", "mode": "chat", "max_output_tokens": 3},
        "azure/eu/gpt-x": {"litellm_provider": "azure", "mode": "chat", "max_output_tokens": 3},
        "azure/gpt-x": {"litellm_provider": "azure", "mode": "chat", "max_output_tokens": 4},
        "groq/openai/oss": {"litellm_provider": "groq", "mode": "chat", "max_output_tokens": 6},
        "dall-e": {"litellm_provider": "openai", "mode": "image_generation", "max_input_tokens": 9},
        "stranger": {"litellm_provider": "somebody", "mode": "chat", "max_input_tokens": 9},
        "text": {"litellm_provider": "openai", "mode": "chat", "max_input_tokens": "many"},
    }
    assert make_limits.trim(source) == {
        "openai": {"chat": {"gpt-x": [10, 5]}},
        "gemini": {"chat": {"g-x": [7, None]}},
        "vertex": {"chat": {"c-x@1": [None, 3]}},
        "azure": {"chat": {"gpt-x": [None, 4]}},
        "groq": {"chat": {"openai/oss": [None, 6]}},
    }
