"""`per_model_usage` of the quota, against rows of the logs added up by hand."""

from decimal import Decimal
from typing import Any

from store.logs.types import CallRow
from store.logs.writer import LogWriter

KEYS = "/api/governance/virtual-keys"
HOUR_MS = 3_600_000


async def test_each_budget_shows_what_each_model_used_of_it(console: Any) -> None:
    started = console.clock.now_ms()
    budgets = [{"max_limit": 5, "reset_duration": "1h"}, {"max_limit": 50, "reset_duration": "1d"}]
    day = [{"max_limit": 5, "reset_duration": "1d"}]
    body = {
        "name": "ci", "budgets": budgets,
        "provider_configs": [
            {"provider": "openai", "budgets": day, "model_budgets": [{"model_name": "gpt-4o", "budgets": day}]},
            {"provider": "*", "budgets": day, "model_budgets": [{"model_name": "*-mini", "budgets": day}]},
        ],
    }  # fmt: skip
    key = (await console.client.post(KEYS, json=body)).json()["virtual_key"]
    calls = [
        # at, provider, model, tokens in and out, nano-dollars, status
        (1_000, "openai", "gpt-4o", 10, 5, 100_000_000, "success"),
        (2_000, "openai", "gpt-4o-2024-08-06", 1, 1, 50_000_000, "error"),
        (3_000, "openai", "gpt-4o-mini", 7, 3, 10_000_000, "success"),
        (4_000, "anthropic", "claude-sonnet-4-5", 100, 50, 900_000_000, "success"),
        (5_000, "openai", "gpt-4o", 0, 0, 0, "refused"),
        (2 * HOUR_MS + 30_000, "openai", "gpt-4o", 20, 10, 200_000_000, "cut"),
    ]  # fmt: skip
    writer = LogWriter(console.logs_database, clock=console.clock)
    writer.start()
    for number, (at_ms, provider, model, tokens_in, tokens_out, cost, status) in enumerate(calls):
        row = CallRow(
            f"call-{number}", started + at_ms, status, 200, provider=provider, model=model, virtual_key_id=key["id"],
            input_tokens=tokens_in, output_tokens=tokens_out, cost_nanos=cost,
        )  # fmt: skip
        writer.add(row)
    writer.add(
        CallRow("other", started + 1, "success", 200, provider="openai", model="gpt-4o", virtual_key_id="else", cost_nanos=1)
    )
    assert writer.flush()
    writer.close()

    console.clock.ahead_seconds = (2 * HOUR_MS + 60_000) / 1000
    answer = (await console.client.get(f"{KEYS}/quota", headers={"x-bf-vk": key["value"]})).json()

    def used(owner: Any, place: int = 0) -> list[tuple[str, str, int, int, Decimal]]:
        return [
            (row["provider"], row["model"], row["total_requests"], row["total_tokens"], Decimal(str(row["total_cost"])))
            for row in owner["budgets"][place]["per_model_usage"]
        ]

    gpt, dated = ("openai", "gpt-4o", 2, 45, Decimal("0.3")), ("openai", "gpt-4o-2024-08-06", 1, 2, Decimal("0.05"))
    mini, claude = ("openai", "gpt-4o-mini", 1, 10, Decimal("0.01")), ("anthropic", "claude-sonnet-4-5", 1, 150, Decimal("0.9"))
    assert used(answer) == [("openai", "gpt-4o", 1, 30, Decimal("0.2"))], "this hour's only"
    assert used(answer, 1) == [claude, gpt, dated, mini], "the dearest first"
    openai, anywhere = answer["provider_configs"]
    assert (used(openai), used(anywhere)) == ([gpt, dated, mini], [claude]), "what names the provider goes before what names any"
    models = {config["model_name"]: used(config) for config in answer["model_configs"]}
    assert models == {"gpt-4o": [gpt, dated], "*-mini": [mini]}
