"""Whatever governance there is: exported, imported into an empty store and exported again it is the same, byte for byte."""

import json
import tomllib
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store.clock import Ids
from store.config_store.export import export_text, json_text
from store.config_store.import_plan import Wish, apply_import, plan_import
from store.config_store.store import ConfigStore
from store.memory import MemoryDatabase
from tests.store.config_store.conftest import StillClock

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00…", exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
WINDOWS = st.sampled_from(["1h", "30m", "1d", "7d", "1w", "1M", "1Y"])
MONEY = st.integers(0, 2**63 - 1).map(lambda nanos: Decimal(nanos).scaleb(-9))
WEIGHTS = st.floats(0, 1, allow_nan=False)
PROVIDERS = st.sampled_from(["openai", "anthropic", "gemini", "*"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A document with any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


def with_(required: dict[str, st.SearchStrategy[Any]], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=fields)


BUDGETS = st.lists(
    with_(
        {"max_limit": MONEY, "reset_duration": WINDOWS},
        name=NAMES,
        enforcement=st.sampled_from(["hard", "soft", "observe"]),
        strict=st.booleans(),
        carry_over=st.booleans(),
        timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
    ),
    max_size=3,
    unique_by=lambda budget: budget["reset_duration"],
)
RATES = st.one_of(
    st.none(),
    with_({"token_max_limit": st.integers(0, 2**53), "token_reset_duration": WINDOWS}, concurrent_max_limit=st.integers(1, 9)),
    with_({"request_max_limit": st.integers(0, 2**53), "request_reset_duration": WINDOWS}, enforcement=st.just("observe")),
)
LIMITS: dict[str, Any] = {"budgets": BUDGETS, "rate_limit": RATES, "calendar_aligned": st.booleans()}
CONFIGS = st.lists(
    with_(
        {"provider": PROVIDERS},
        weight=WEIGHTS,
        allowed_models=st.lists(NAMES.filter(lambda name: name != "*"), max_size=2, unique=True),
        blacklisted_models=st.lists(NAMES.filter(lambda name: name != "*"), max_size=2, unique=True),
        key_ids=st.just([]),
        **LIMITS,
    ),
    max_size=3,
)
KEYS = st.lists(
    with_(
        {"name": NAMES},
        description=TEXTS,
        is_active=st.booleans(),
        expires_at=st.just("2036-01-01T00:00:00.123Z"),
        provider_configs=CONFIGS,
        **LIMITS,
    ),
    max_size=4,
    unique_by=lambda key: key["name"],
)
TEAMS = st.lists(with_({"name": NAMES}, **LIMITS), max_size=3, unique_by=lambda team: team["name"])
PROMPTS = st.lists(
    with_({"name": NAMES, "text": TEXTS.filter(bool)}, description=TEXTS), max_size=2, unique_by=lambda prompt: prompt["name"]
)
GOVERNANCE = st.fixed_dictionaries({"customers": TEAMS, "teams": TEAMS, "virtual_keys": KEYS})


def empty() -> ConfigStore:
    clock = StillClock()
    memory = MemoryDatabase(clock=clock)
    memory.migrate()
    return ConfigStore(memory, clock, Ids(clock))


@given(governance=GOVERNANCE, prompts=PROMPTS)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_there_and_back_again(governance: dict[str, Any], prompts: list[dict[str, Any]]) -> None:
    first, second, third = empty(), empty(), empty()
    try:
        apply_import(first, Wish({"governance": governance, "prompts": prompts}, {}))
        text = export_text(first, "toml", secrets=True)
        document = tomllib.loads(text, parse_float=Decimal)
        apply_import(second, Wish(document, {}))
        assert export_text(second, "toml", secrets=True) == text
        apply_import(third, Wish(json.loads(json_text(document), parse_float=Decimal), {}))
        assert export_text(third, "toml", secrets=True) == text
        assert export_text(third, "json", secrets=True) == export_text(first, "json", secrets=True)
        assert plan_import(first, Wish(document, {}, prune=True)).changes == ()
        # What was written by hand, with its defaults spelt out, says nothing new either.
        assert plan_import(first, Wish({"governance": governance, "prompts": prompts}, {}, prune=True)).changes == ()
    finally:
        for store in (first, second, third):
            store.close()
