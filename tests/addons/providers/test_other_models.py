"""A request that names several models is governed by all of them: permission, caps, price; and what blocks by name blocks `*`."""

import json
from dataclasses import replace
from typing import Any

import pytest

from addons.call import Call
from addons.providers import body as bodies
from addons.providers.dialect import BadRequestBody
from addons.providers.other_models import MOST, other_models
from addons.services import Services
from store.config_store.snapshot import ANY, ModelCaps, ModelLimit, ProviderConfig, VirtualKey
from store.ledger.types import HoldRequest
from tests.support import calls
from tests.support.calls import KEY, cap

CHEAP, DEAR = "openai/gpt-4o-mini", "openai/gpt-4-turbo"
PATH = "/openrouter/v1/chat/completions"
RESPONSES = {"model": CHEAP, "input": "hello"}


def config(identity: str, provider: str, **fields: Any) -> ProviderConfig:
    return ProviderConfig(identity, provider, **({"allowed_models": (ANY,)} | fields))


def key(*configs: ProviderConfig, **fields: Any) -> VirtualKey:
    return calls.virtual_key(provider_configs=configs or (config("pc", ANY),), **fields)


async def sent(virtual_key: VirtualKey, content: bytes, path: str = PATH, **snapshot: Any) -> tuple[Call, Services]:
    services = calls.services(calls.snapshot({KEY: virtual_key}, **snapshot))
    return await calls.on_its_way(calls.call(path, body=content), services), services


def held_by(services: Services) -> list[HoldRequest]:
    assert isinstance(services.ledger, calls.RecordingLedger)
    return services.ledger.holds


def blocked(made: Call) -> str:
    return made.refusal.type if made.refusal else ""


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"models": [DEAR]}, (DEAR,)),
        ({"models": [CHEAP, DEAR, DEAR]}, (DEAR,)),
        ({"models": None, "fallbacks": None}, ()),
        ({"fallbacks": [DEAR]}, (DEAR,)),
        ({"fallbacks": [{"model": DEAR, "max_tokens": 5}, "x"]}, (DEAR, "x")),
        ({"preset": "cheap"}, ("@preset/cheap",)),
        ({"preset": "@preset/cheap"}, ("@preset/cheap",)),
        ({"providerOptions": {"gateway": {"models": [DEAR]}}}, (DEAR,)),
        ({"providerOptions": {"openai": {"models": 5}}}, ()),
        ({"route": "fallback", "provider": {"order": ["a"]}}, ()),
    ],
)
def test_every_way_of_naming_other_models_is_read(fields: dict[str, Any], named: tuple[str, ...]) -> None:
    request = {"model": CHEAP, **fields}
    assert other_models(request, json.dumps(request).encode(), CHEAP) == named


@pytest.mark.parametrize(
    "text",
    [
        '{"models": "x"}', '{"models": [1]}', '{"models": [""]}', '{"models": ["\\ud800"]}', '{"fallbacks": [{}]}',
        '{"preset": {}}',
        '{"fallbacks": [{"model": "a", "model": "b"}]}', '{"fallbacks": [{"model": "a", "mod\\u0065l": "b"}]}',
        '{"providerOptions": {"gateway": []}}', json.dumps({"models": [str(number) for number in range(MOST + 1)]}),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadRequestBody):
        other_models(bodies._parsed(text.encode()), text.encode(), CHEAP)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PATH, {"messages": [{"role": "user", "content": "hello"}]}),
        ("/openrouter/v1/responses", {"input": "hello"}),
        ("/openrouter/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}),
        ("/openrouter/v1/embeddings", {"input": "hello"}),
    ],
)
@pytest.mark.parametrize("others", [{"models": [CHEAP, DEAR]}, {"fallbacks": [{"model": DEAR}]}])
async def test_a_model_that_may_answer_instead_must_be_allowed(path: str, fields: Any, others: Any) -> None:
    narrow = key(config("pc", "openrouter", allowed_models=(CHEAP,)))
    alone, _ = await sent(narrow, json.dumps({"model": CHEAP} | fields).encode(), path)
    assert blocked(alone) == ""
    made, services = await sent(narrow, json.dumps({"model": CHEAP} | fields | others).encode(), path)
    assert blocked(made) == "model_blocked" and made.refusal is not None
    assert DEAR in made.refusal.message and "answer instead" in made.refusal.message
    assert not held_by(services)


@pytest.mark.parametrize("twice", ['"models": ["x"], "models": ["openai/gpt-4-turbo"]', '"models": ["x"], "m\\u006fdels": ["y"]'])
async def test_a_list_of_models_stands_once(twice: str) -> None:
    made, _ = await sent(key(), calls.chat(model=CHEAP)[:-1] + f", {twice}}}".encode())
    assert blocked(made) == "invalid_request"


async def test_no_two_configs_together_allow_what_neither_does() -> None:
    split = key(config("pc-1", "openrouter", allowed_models=(CHEAP,)), config("pc-2", "openrouter", allowed_models=(DEAR,)))
    made, _ = await sent(split, calls.chat(model=CHEAP, models=[DEAR]))
    assert blocked(made) == "model_blocked"


async def test_the_dearest_model_is_held() -> None:
    """Nano-dollars a token: gpt-4o-mini 150 and 600, gpt-4-turbo 10,000 and 30,000."""
    budget = key(caps=(cap(limit=10**12),))
    amounts = {}
    for models in ([], [CHEAP], [DEAR]):
        made, services = await sent(budget, calls.chat(model=CHEAP, models=models, max_tokens=1000))
        assert blocked(made) == ""
        amounts[len(models) and models[0]] = held_by(services)[0].bound_nanos
    alone, services = await sent(budget, calls.chat(model=DEAR, max_tokens=1000))
    assert amounts[0] < amounts[DEAR] and amounts[CHEAP] < 2 * amounts[0]
    assert amounts[DEAR] >= held_by(services)[0].bound_nanos >= 1000 * 30_000
    assert alone.model == DEAR


@pytest.mark.parametrize("other", ["nobody/knows-it", "@preset/mine"])
async def test_an_unknown_price_of_any_model_is_unknown(other: str) -> None:
    made, _ = await sent(key(caps=(cap(),)), calls.chat(model=CHEAP, models=[other], max_tokens=10))
    assert blocked(made) == "unpriced_model"
    assert made.refusal is not None and other in made.refusal.message


async def test_caps_of_every_named_model_bind() -> None:
    limit = ModelLimit("mc", "gpt-4-turbo", caps=(cap("dear"),))
    limits = ModelCaps.of((limit,))
    made, _ = await sent(key(), calls.chat(model=CHEAP, models=[DEAR]), model_caps=limits)
    assert "dear" in made.cap_ids
    made, _ = await sent(key(), calls.chat(model=CHEAP), model_caps=limits)
    assert "dear" not in made.cap_ids


async def test_a_provider_key_must_serve_every_model() -> None:
    snapshot = calls.snapshot()
    provider = snapshot.providers["openrouter"]
    narrow = replace(provider, keys=(replace(provider.keys[0], models=(CHEAP,)),))
    made, _ = await sent(key(), calls.chat(model=CHEAP, models=[DEAR]), providers={"openrouter": narrow})
    assert blocked(made) == "no_provider_key"


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/v1/chat/completions"])
async def test_what_a_config_naming_the_provider_blocks_no_other_serves(path: str) -> None:
    both = (config("pc-1", "openai", blacklisted_models=("gpt-4o",)), config("pc-2", ANY))
    for order in (both, both[::-1]):
        made, services = await sent(key(*order), calls.chat(model="gpt-4o"), path)
        assert blocked(made) == "model_blocked" and not held_by(services)
        made, services = await sent(key(*order), calls.chat(model="gpt-4o-mini"), path)
        assert blocked(made) == "" and made.provider_config is both[0]


async def test_a_model_that_is_only_not_listed_by_name_may_go_by_any() -> None:
    both = (config("pc-1", "openai", allowed_models=("gpt-5",)), config("pc-2", ANY))
    made, _ = await sent(key(*both), calls.chat(model="gpt-4o"), "/openai/v1/chat/completions")
    assert blocked(made) == "" and made.provider_config is both[1]
