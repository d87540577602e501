"""`/api/governance/pricing-overrides` over HTTP: Bifrost's statuses and envelopes, exact prices, clear refusals."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.addons.console.conftest import Console, StartConsole

PATH = "/api/governance/pricing-overrides"
WANTED = {
    "name": "negotiated", "scope_kind": "provider", "provider_id": "openai", "match_type": "wildcard", "pattern": "gpt-4o*",
    "request_types": ["chat_completion", "responses"],
    "patch": {"input_cost_per_token": 0.000002, "output_cost_per_token": 8e-6, "input_cost_per_token_above_200k_tokens": 4e-6},
}  # fmt: skip


def exact(answer: httpx.Response) -> Any:
    return json.loads(answer.text, parse_float=Decimal)


async def test_made_read_changed_and_deleted(console: Console) -> None:
    made = await console.client.post(PATH, json=WANTED)
    assert made.status_code == 201, made.text
    body = exact(made)
    assert body["message"] == "Pricing override created successfully"
    override = body["pricing_override"]
    assert override["patch"] == {
        "input_cost_per_token": Decimal("0.000002"),
        "output_cost_per_token": Decimal("0.000008"),
        "input_cost_per_token_above_200k_tokens": Decimal("0.000004"),
    }
    assert override["patch_per_million_usd"]["output_cost_per_token"] == 8
    assert (override["complete"], override["confirm_high_prices"], override["virtual_key_id"]) == (True, False, None)
    place = f"{PATH}/{override['id']}"
    read = await console.client.get(place)
    assert exact(read) == {"pricing_override": override}
    assert read.headers["etag"] == made.headers["etag"]
    # what was read can be changed and sent back whole
    changed = await console.client.put(
        place, json=read.json()["pricing_override"] | {"name": "better"}, headers={"If-Match": read.headers["etag"]}
    )
    assert (changed.status_code, changed.json()["pricing_override"]["name"]) == (200, "better"), changed.text
    stale = await console.client.put(place, json={"name": "stale"}, headers={"If-Match": read.headers["etag"]})
    assert stale.status_code == 412
    gone = await console.client.delete(place)
    assert (gone.status_code, gone.json()) == (200, {"message": "Pricing override deleted successfully"})
    assert [
        (await console.client.request(method, place, json=body)).status_code
        for method, body in (("GET", None), ("PUT", {}), ("DELETE", None))
    ] == [404] * 3


async def test_the_list(console: Console) -> None:
    for number in range(4):
        name = {"name": f"price {number}", "pattern": f"model-{number}", "match_type": "exact"}
        scope = {} if number else {"scope_kind": "global", "provider_id": None}
        assert (await console.client.post(PATH, json=WANTED | name | scope)).status_code == 201
    everything = (await console.client.get(PATH)).json()
    assert [everything[name] for name in ("count", "total_count", "limit", "offset")] == [4, 4, 4, 0]
    page = (await console.client.get(PATH, params={"limit": 2, "offset": 3})).json()
    assert [page[name] for name in ("count", "total_count", "limit", "offset")] == [1, 4, 2, 3]
    for query, found in (
        ({"scope_kind": "global"}, ["price 0"]),
        ({"provider_id": "openai", "search": "MODEL-2"}, ["price 2"]),
        ({"virtual_key_id": "nobody"}, []),
    ):
        listed = (await console.client.get(PATH, params=query)).json()
        assert [one["name"] for one in listed["pricing_overrides"]] == found
        assert listed["limit"] == 25
    wrong = await console.client.get(PATH, params={"scope": "global"})
    assert wrong.status_code == 400 and "did you mean 'scope_kind'?" in wrong.json()["error"]["message"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"patch": {"input_cost_per_token": 2.5}}, "$2,500,000 per million tokens"),
        ({"patch": {"input_cost_per_tokens": 1e-6}}, "did you mean 'input_cost_per_token'?"),
        ({"provider_id": "opnai"}, "did you mean 'openai'?"),
        ({"paterm": "x"}, "did you mean 'pattern'?"),
        ({"patch": {"input_cost_per_token": 1.0000000000000002e-06}}, "more than 12 decimals"),
        ({"request_types": "chat_completion"}, "request_types: must be a list"),
    ],
)
async def test_refusals_say_what_to_do(console: Console, fields: dict[str, Any], words: str) -> None:
    refused = await console.client.post(PATH, json=WANTED | fields)
    assert refused.status_code == 400 and words in refused.json()["error"]["message"], refused.text
    assert (await console.client.get(PATH)).json()["total_count"] == 0


async def test_a_name_is_given_once(console: Console) -> None:
    assert (await console.client.post(PATH, json=WANTED)).status_code == 201
    assert (await console.client.post(PATH, json=WANTED)).status_code == 409


async def test_strangers_see_nothing(start_console: StartConsole) -> None:
    console = await start_console()
    async with console.stranger() as stranger:
        assert (await stranger.get(PATH)).status_code == 401
        assert (await stranger.post(PATH, json=WANTED)).status_code == 401
