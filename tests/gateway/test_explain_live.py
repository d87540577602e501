"""A real gateway refuses a call; its console says why, forecasts, counts and adds up."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from store.config_store.fields import loads_exact
from tests.support.config import VIRTUAL_KEY, budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

LIMIT = "0.0005"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with PretendProcess() as provider:
        config = config_for(provider.url, virtual_keys=[virtual_key(budgets=[budget(LIMIT, reset="1d")])])
        with Gateway(tmp_path_factory.mktemp("explained"), config) as running:
            yield running


def call(gateway: Gateway, **fields: Any) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(**fields), {"x-bf-vk": VIRTUAL_KEY}))


def test_a_refusal_is_looked_up_by_the_id_in_its_answer(gateway: Gateway) -> None:
    good = call(gateway)
    assert good.status == 200, gateway.log()
    refused = call(gateway, limit=100_000, text="x" * 20_000)
    assert refused.status == 402
    told = loads_exact(refused.body)
    with gateway.console() as console:
        path = f"/api/governance/explain/{told['request_id']}"
        found = loads_exact(eventually(lambda: console.get(path), lambda got: got.status_code == 200).content)
        assert (found["outcome"], found["refusal_type"]) == ("refused", "budget_exceeded")
        assert found["explanation"].startswith(told["message"])
        named = found["exceeded"][0]
        for field in ("id", "name", "scope", "unit", "max_limit", "current_usage", "held", "needed", "remaining", "resets_at"):
            assert named[field] == told["budget"][field], f"{field} as the caller was told"
        first_id = good.headers["x-tollgate-request-id"]
        assert [one["id"] for one in found["filled_by"]["calls"]] == [first_id]
        charged = loads_exact(console.get(f"/api/governance/explain/{first_id}").content)
        assert charged["outcome"] == "charged" and charged["cost"] == found["filled_by"]["calls"][0]["amount"] > 0

        stats = loads_exact(console.get("/api/logs/stats").content)
        assert (stats["total_requests"], stats["success"], stats["refused"]) == (2, 1, 1)
        spent = gateway.quota()["budgets"][0]["current_usage"]
        assert stats["total_cost"] == charged["cost"] == Decimal(str(spent)), "logs and ledger agree"
        (expected,) = loads_exact(console.get("/api/governance/forecast").content)["forecasts"]
        assert (expected["current_usage"], expected["not_enough_data"]) == (stats["total_cost"], True)
        counted = {
            sample.name: sample.value
            for family in text_string_to_metric_families(console.get("/metrics").text)
            for sample in family.samples
            if sample.labels.get("provider") == "openai"
        }
        assert counted["bifrost_upstream_requests_total"] == 1 and counted["tollgate_refused_requests_total"] == 1
        assert counted["bifrost_cost_total"] == pytest.approx(float(spent))
    assert "Traceback" not in gateway.log()
