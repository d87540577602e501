"""Names of models: what a listed name, or a pattern, covers, and what it does not. The examples are the providers' own names."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.patterns import CACHED, caps_on, matches_any, spellings
from store.config_store.snapshot import ModelCaps, ModelLimit
from store.ledger.types import Cap, Scope, Unit
from store.prices.book import PriceBook


@pytest.mark.parametrize(
    ("patterns", "name", "expected"),
    [
        ((), "gpt-4o", False),
        (("*",), "gpt-4o", True),
        (("*",), "", True),
        (("gpt-4o",), "gpt-4o", True),
        (("gpt-4o",), "gpt-4o-mini", False),
        (("gpt-4o",), "GPT-4O", True),
        (("GPT-4o",), "gpt-4o", True),
        (("gpt-*",), "gpt-4o", True),
        (("gpt-*",), "gpt-", True),
        (("gpt-*",), "chatgpt-4o", False),
        (("*-mini",), "gpt-4o-mini", True),
        (("*-mini",), "gpt-4o-mini-high", False),
        (("*-mini",), "gpt-4o-mini-2024-07-18", True),
        (("gpt-*-mini",), "gpt-4o-mini", True),
        (("claude-*", "gpt-4o"), "gpt-4o", True),
        (("gpt-4.1",), "gpt-4x1", False),
        (("meta/*",), "meta/llama/3", True),
        (("",), "gpt-4o", False),
        (("[g]*",), "gpt-4o", False),  # brackets are letters
        (("[g]*",), "[g]pt", True),
        (("ft:gpt[1]*",), "ft:gpt[1]x", True),
        (("a*a",), "a", False),  # two letters cannot be the same one
        (("a*b*b",), "axb", False),
    ],
)
def test_lists(patterns: tuple[str, ...], name: str, expected: bool) -> None:
    assert matches_any(patterns, name) is expected


SAME = [
    # listed, asked for, at: snapshots as the providers' model pages write them
    ("gpt-4o", "gpt-4o-2024-08-06", "openai"),
    ("gpt-4", "gpt-4-0613", "openai"),
    ("gpt-3.5-turbo", "gpt-3.5-turbo-0125", "openai"),
    ("o1-preview", "o1-preview-2024-09-12", "openai"),
    ("claude-sonnet-4", "claude-sonnet-4-20250514", "anthropic"),
    ("claude-sonnet-4", "claude-sonnet-4-0", "anthropic"),
    ("claude-3-7-sonnet", "claude-3-7-sonnet-latest", "anthropic"),
    ("claude-sonnet-4", "claude-sonnet-4@20250514", "vertex"),
    ("claude-sonnet-4", "us.anthropic.claude-sonnet-4-20250514-v1:0", "bedrock"),
    ("claude-3-5-sonnet", "anthropic.claude-3-5-sonnet-20241022-v2:0:200k", "bedrock"),
    ("nova-pro", "amazon.nova-pro-v1:0", "bedrock"),
    ("gemini-2.0-flash", "gemini-2.0-flash-001", "gemini"),
    ("gemini-2.0-flash", "models/gemini-2.0-flash", "gemini"),
    ("models/gemini-2.0-flash", "gemini-2.0-flash", "gemini"),
    ("gemini-2.0-flash", "publishers/google/models/gemini-2.0-flash", "vertex"),
    ("gemini-2.5-pro", "gemini-2.5-pro-preview-05-06", "gemini"),
    ("gemini-2.5-flash", "gemini-2.5-flash-preview-09-2025", "gemini"),
    ("gemini-2.5-flash-preview", "gemini-2.5-flash-preview-09-2025", "gemini"),
    ("gemini-1.5-pro", "gemini-1.5-pro-exp-0827", "gemini"),
    ("mistral-large", "mistral-large-latest", "mistral"),
    ("mistral-large", "mistral-large-2411", "mistral"),
    ("command-r", "command-r-08-2024", "cohere"),
    ("grok-4", "grok-4-0709", "xai"),
    ("llama3", "llama3:latest", "ollama"),
    # through a router
    ("gpt-4o", "openai/gpt-4o", "openrouter"),
    ("gpt-4o", "openai/gpt-4o:nitro", "openrouter"),
    ("gpt-4o", "openai/gpt-4o-2024-08-06:online", "openrouter"),
    ("gpt-4o", "openai/gpt-4o@preset/cheap", "openrouter"),
    ("openai/gpt-4o", "openai/gpt-4o:floor", "openrouter"),
    ("llama-v3p1-405b-instruct", "accounts/fireworks/models/llama-v3p1-405b-instruct", "fireworks"),
    ("openai/gpt-4o", "gpt-4o-2024-08-06", "openai"),
    # what is written to get past a list
    ("gpt-4o", "GPT-4O", "openai"),
    ("gpt-4o", "gpt-4o ", "openai"),
    ("gpt-4o", "\tgpt-4o\n", "openai"),
    ("gpt-4o", "OpenAI/GPT-4o", "openrouter"),
    ("gpt-4o", "gpt-4o" + " " * 10_000, "openai"),
    ("gpt-4o", "GPT-4O-2024-08-06", "openai"),
]
OTHERS = [
    ("gpt-4o", "gpt-4o-mini", "openai"),
    ("gpt-4o", "gpt-4o-audio-preview-2024-12-17", "openai"),
    ("gpt-4", "gpt-4-turbo", "openai"),
    ("gpt-4", "gpt-4.1", "openai"),
    ("gpt-4", "gpt-4-0125-preview", "openai"),  # GPT-4 Turbo, at a third of the price
    ("gpt-4", "gpt-4-32k-0613", "openai"),
    ("o1", "o1-preview-2024-09-12", "openai"),
    ("o1", "o1-mini-2024-09-12", "openai"),
    ("gpt-4o", "chatgpt-4o-latest", "openai"),
    ("gpt-4o", "ft:gpt-4o-2024-08-06:acme::abc123", "openai"),  # a fine-tune has a price of its own
    ("gpt-4o-2024-08-06", "gpt-4o", "openai"),  # who lists one snapshot means that one
    ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13", "openai"),
    ("claude-opus-4", "claude-opus-4-1", "anthropic"),
    ("claude-opus-4", "claude-opus-4-1-20250805", "anthropic"),
    ("claude-sonnet-4", "claude-sonnet-4-5-20250929", "anthropic"),
    ("gemini-2.5-flash", "gemini-2.5-flash-lite-preview-06-17", "gemini"),
    ("gemini-2.5-flash", "gemini-2.5-flash-preview-tts", "gemini"),
    ("command-r", "command-r-plus-08-2024", "cohere"),
    ("mixtral-8x7b", "mixtral-8x7b-32768", "groq"),  # the context's length is no date
    ("llama3-70b", "llama3-70b-8192", "groq"),
    ("llama3", "llama3:70b", "ollama"),
    ("falcon", "falcon-180", "vllm"),  # nor is the number of parameters a version
    ("gpt-4o", "openai/gpt-4o-mini:free", "openrouter"),
    ("llama", "@cf/meta/llama-3", "cloudflare"),
    ("azure/gpt-4o", "gpt-4o", "openai"),
]  # fmt: skip


@pytest.mark.parametrize(("listed", "asked", "provider"), SAME)
def test_a_name_covers_what_the_provider_takes_for_the_same_model(listed: str, asked: str, provider: str) -> None:
    assert matches_any((listed,), asked, provider)


@pytest.mark.parametrize(("listed", "asked", "provider"), OTHERS)
def test_models_that_begin_alike_are_others(listed: str, asked: str, provider: str) -> None:
    assert not matches_any((listed,), asked, provider)


def test_what_the_price_book_takes_for_a_model_counts_as_that_model() -> None:
    """A spelling that is priced like a model, and so would be let through, must not get past that model's cap."""
    book = PriceBook.load()
    tried = 0
    for provider in ("openai", "anthropic", "gemini", "mistral", "xai"):
        for model in book.models(provider):
            for spelling in (model.upper(), f" {model} ", f"models/{model}", f"{provider}/{model}"):
                if book.find(provider, spelling) == book.find(provider, model) is not None:
                    tried += 1
                    assert matches_any((model,), spelling, provider), spelling
    assert tried > 500


def test_no_model_of_the_price_book_is_taken_for_another_line() -> None:
    """Over the names of 2,000 models: where one covers another, the other is written as the one with a date, tag or vendor."""
    book = PriceBook.load()
    for provider in ("openai", "anthropic", "gemini", "mistral", "xai", "cohere", "deepseek", "groq", "openrouter"):
        names = {model.lower() for model in book.models(provider)}
        for name in names:
            for other in (names & {*spellings(name)}) - {name}:
                tail = name.rpartition("/")[2]
                rest = tail.removeprefix(other.rpartition("/")[2])
                letters = "".join(part for part in rest.replace(":", "-").split("-") if not part.isdigit())
                assert letters in ("", "latest", "preview", "exp", "expfree", *_TAGS), (name, other)


_TAGS = ("free", "batch", "extended", "thinking", "nitro", "online", "beta", "floor")


def test_a_question_mark_is_a_letter() -> None:
    """An allow list must not allow more than it says."""
    assert not matches_any(("gpt-4?*",), "gpt-4o")


@given(
    st.text(alphabet="ab[]!^$.+()\\{}|-", max_size=8),
    st.text(alphabet="ab[]!^$.+()\\{}|-", max_size=8),
    st.text("abxy", max_size=8),
)
def test_only_the_star_is_special(head: str, tail: str, middle: str) -> None:
    """Whatever stands around a star must stand in the name as it is."""
    pattern = (f"{head}*{tail}",)
    assert matches_any(pattern, head + middle + tail)
    assert matches_any(pattern, middle) is (
        len(middle) >= len(head) + len(tail) and middle.startswith(head) and middle.endswith(tail)
    )  # fmt: skip


@given(st.text(max_size=300), st.sampled_from(["", "openai", "openrouter"]))
def test_any_name_at_all_is_itself_and_few_others(name: str, provider: str) -> None:
    found = spellings(name, provider)
    assert found[0] == name.strip().lower()
    assert len(found) <= 40 and all(len(spelling) <= len(name) + len(provider) + 1 for spelling in found)


@pytest.mark.parametrize("name", ["-0" * 500_000, "a/" * 500_000, "x" * 1_000_000, "-" * 255, "a.b." * 60, "@:/" * 85])
def test_names_that_are_meant_to_cost_time_do_not(name: str) -> None:
    patterns = ("*" + "a*" * 40 + "b", "gpt-4o")
    began = time.perf_counter()
    assert not matches_any(patterns, name, "openai")
    assert time.perf_counter() - began < 0.05


def limit(config_id: str, model_name: str, provider: str | None = None) -> ModelLimit:
    cap = Cap(config_id, config_id, Scope.MODEL, config_id, model_name, Unit.USD, 1, "1h")
    return ModelLimit(config_id, model_name, provider, (cap,))


def found(limits: list[ModelLimit], name: str, provider: str = "openai") -> list[str]:
    return [made.id for made in caps_on(ModelCaps.of(limits), name, provider)]


def test_a_call_is_charged_to_every_config_that_matches_the_narrowest_first() -> None:
    limits = [
        limit("all", "*"), limit("pattern", "gpt-*"), limit("line", "gpt-4o"), limit("snapshot", "gpt-4o-2024-08-06"),
        limit("here", "GPT-4o", "openai"), limit("there", "gpt-4o", "azure"), limit("here-all", "*", "openai"),
    ]  # fmt: skip
    assert found(limits, "gpt-4o-2024-08-06") == ["here", "line", "snapshot", "pattern", "here-all", "all"]
    assert found(limits, "gpt-4o") == ["here", "line", "pattern", "here-all", "all"]
    assert found(limits, "gpt-4o", "azure") == ["there", "line", "pattern", "all"]
    assert found(limits, "claude-opus-4-1", "anthropic") == ["all"]
    assert found(limits, "", "openai") == ["here-all", "all"], "a path without a model"


def test_a_config_that_fits_in_two_ways_is_charged_once() -> None:
    assert found([limit("one", "*openai/gpt-4o*"), limit("two", "gpt-4o")], "openai/gpt-4o-2024-08-06", "openrouter") == [
        "two",
        "one",
    ]


def test_configs_without_caps_bind_nobody() -> None:
    assert ModelCaps.of([ModelLimit("empty", "*")]).limits == ()


def test_a_thousand_configs_cost_no_more_than_a_few() -> None:
    many = ModelCaps.of([limit(f"mc-{number}", f"model-{number}") for number in range(1_000)] + [limit("star", "gpt-*")])
    assert [made.id for made in caps_on(many, "gpt-4o", "openai")] == ["star"]
    best = min(_seconds(many) for _ in range(5))
    assert best < 1_000 * 20e-6, "20 microseconds a call"


def test_a_thousand_patterns_are_tried_once_a_name_and_little_is_kept() -> None:
    many = ModelCaps.of(
        [limit(f"mc-{number}", f"model-{number}-*") for number in range(1_000)] + [limit("star", "gpt-*", "openai")]
    )
    assert [made.id for made in caps_on(many, "gpt-4o", "openai")] == ["star"]
    assert caps_on(many, "gpt-4o", "azure") == (), "the same name elsewhere is another question"
    assert min(_seconds(many) for _ in range(5)) < 1_000 * 20e-6
    for number in range(CACHED + 10):
        caps_on(many, f"name-{number}", "openai")
    assert len(many.found) <= CACHED
    assert caps_on(many, "gpt-" + "x" * 1_000, "openai") != () and not any(len(name) > 256 for name, _ in many.found)
    assert many == ModelCaps.of(many.limits), "what was answered before makes no difference"


def _seconds(limits: ModelCaps) -> float:
    began = time.perf_counter()
    for _ in range(1_000):
        caps_on(limits, "gpt-4o-2024-08-06", "openai")
    return time.perf_counter() - began
