"""Our reading of the price data against the library that the data belongs to."""

import subprocess
import sys
from datetime import UTC, datetime, time, timedelta, timezone

import orjson
import pytest
from genai_prices import data_snapshot, types
from genai_prices.data import providers as library_providers
from hypothesis import given, settings
from hypothesis import strategies as st

from store.prices.compile import active_price
from store.prices.genai.catalogue import bundled
from store.prices.genai.types import TimeOfDateConstraint
from store.prices.limits import TABLE

LIBRARY = data_snapshot.DataSnapshot(providers=library_providers, from_auto_update=False)
BY_ID = {provider.id: provider for provider in library_providers}


def library_match(provider_id: str, reference: str) -> tuple[str | None, bool]:
    found = BY_ID[provider_id].find_model(reference, all_providers=library_providers)
    return (found.id if found else None, found is None or any(found is own for own in BY_ID[provider_id].models))


def our_match(provider_id: str, reference: str) -> tuple[str | None, bool]:
    found = bundled().find(provider_id, reference)
    return (None, True) if found is None else (found.model.id, found.own)


def test_every_provider_and_model_of_the_data_is_there() -> None:
    ours = {provider.id: [(model.id, model.context_window) for model in provider.models] for provider in bundled().providers()}
    assert ours == {p.id: [(model.id, model.context_window) for model in p.models] for p in library_providers}
    assert sum(map(len, ours.values())) > 2000


def test_every_model_is_found_under_its_own_id_as_the_library_finds_it() -> None:
    for provider in library_providers:
        for model in provider.models:
            assert our_match(provider.id, model.id) == library_match(provider.id, model.id)


def foreign_names() -> list[str]:
    """Names somebody else uses for models, so that most of them are not the data's own spelling."""
    table = orjson.loads(TABLE.read_bytes())["limits"]
    return sorted({name for modes in table.values() for models in modes.values() for name in models})


@pytest.mark.parametrize("provider_id", ["openai", "anthropic", "google", "azure", "aws", "mistral", "x-ai", "groq", "fireworks"])
def test_foreign_spellings_match_as_in_the_library(provider_id: str) -> None:
    names = foreign_names()
    assert len(names) > 1000
    for name in names:
        assert our_match(provider_id, name) == library_match(provider_id, name), name


@pytest.mark.parametrize(
    "reference",
    [
        "gpt-5-20250807",
        "GPT-5-20250807",
        "gpt-5.2-20251211",
        "gpt-4o-20249999",
        "claude-opus-4-5-20251101:beta",
        "gpt-4o-20240806-x",
        "",
    ],
)
def test_compact_dates_match_as_in_the_library(reference: str) -> None:
    for provider_id in ("openai", "anthropic", "openrouter", "azure"):
        assert our_match(provider_id, reference) == library_match(provider_id, reference)


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_matches_as_in_the_library(reference: str) -> None:
    for provider_id in ("openai", "google", "azure"):
        assert our_match(provider_id, reference) == library_match(provider_id, reference)


@given(st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)))
@settings(max_examples=60, deadline=None)
def test_dated_and_time_of_day_prices_switch_when_the_librarys_do(moment: datetime) -> None:
    at_ms = int(moment.timestamp() * 1000)
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    compared = 0
    for provider, theirs in zip(bundled().providers(), library_providers, strict=True):
        for model, other in zip(provider.models, theirs.models, strict=True):
            if isinstance(other.prices, types.ModelPrice) or not other.prices:
                continue
            prices = other.get_prices(moment)
            mine = active_price(model, at_ms).by_key
            compared += 1
            assert mine.keys() == {key for key, value in prices.__dict__.items() if value is not None}
            for key, price in mine.items():
                expected = getattr(prices, key)
                assert getattr(price, "base", price) == getattr(expected, "base", expected)
    assert compared > 100


@given(st.times(), st.times(), st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 3), timezones=st.just(UTC)), st.booleans())
@settings(max_examples=300)
def test_times_of_day_also_across_midnight(start: time, end: time, moment: datetime, two_hours_east: bool) -> None:
    zone = timezone(timedelta(hours=2)) if two_hours_east else UTC
    start, end = (one.replace(microsecond=0, tzinfo=zone) for one in (start, end))
    moment = moment.replace(microsecond=0)
    theirs = types.TimeOfDateConstraint(start_time=start, end_time=end)
    assert TimeOfDateConstraint(start, end).active(int(moment.timestamp() * 1000)) == theirs.active(moment)


def test_unknown_providers_match_nothing() -> None:
    assert bundled().find("my-openai-clone", "gpt-4o") is None


def test_loading_prices_imports_neither_the_library_nor_an_http_client() -> None:
    script = (
        "import sys; from store.prices.genai.catalogue import bundled; bundled();"
        "print([name for name in sys.modules if name.startswith(('genai_prices', 'httpx', 'pydantic'))])"
    )
    done = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
