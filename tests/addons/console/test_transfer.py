"""Export and import over HTTP: text out, a plan back, then the change; large files, wrong ones, and who did it."""

import json
import tomllib
from decimal import Decimal
from typing import Any

import pytest

from tests.addons.console.conftest import Console, StartConsole

PATH = "/api/governance/import"


async def exported(console: Console, **query: str) -> str:
    answer = await console.client.get("/api/governance/export", params=query)
    assert answer.status_code == 200, answer.text
    return answer.text


async def sent(console: Console, document: Any, **query: str) -> Any:
    text = document if isinstance(document, str) else json.dumps(document, default=str)
    media = "application/toml" if isinstance(document, str) else "application/json"
    return await console.client.post(PATH, params=query, content=text.encode(), headers={"Content-Type": media}, timeout=60)


async def made_key(console: Console) -> Any:
    body = {"name": "robot", "budgets": [{"max_limit": 0.5, "reset_duration": "1h"}], "provider_configs": [{"provider": "openai"}]}
    return (await console.client.post("/api/governance/virtual-keys", json=body)).json()["virtual_key"]


async def test_toml_and_json_say_the_same(console: Console) -> None:
    await made_key(console)
    toml, text = await exported(console), await exported(console, format="json")
    assert tomllib.loads(toml, parse_float=Decimal) == json.loads(text, parse_float=Decimal)
    for document in (toml, json.loads(text)):
        answer = (await sent(console, document, prune="true")).json()
        assert (answer["changes"], answer["warnings"], answer["applied"]) == ([], [], True)


async def test_a_plan_then_the_change_and_the_audit_log_names_who(console: Console) -> None:
    key = await made_key(console)
    document = tomllib.loads(await exported(console))
    document["governance"]["virtual_keys"][0]["budgets"][0]["max_limit"] = 0.25
    plan = (await sent(console, document, dry_run="true")).json()
    assert plan["applied"] is False
    assert [(one["action"], one["kind"], one["id"]) for one in plan["changes"]] == [("update", "virtual_key", key["id"])]
    assert plan["changes"][0]["fields"] == [{"path": "budgets[1h].max_limit", "from": 0.5, "to": 0.25}]
    assert (await console.client.get(f"/api/governance/virtual-keys/{key['id']}")).json()["virtual_key"]["budgets"][0][
        "max_limit"
    ] == 0.5
    done = (await sent(console, document, tag=plan["tag"], reason="the review")).json()
    assert done["applied"] and done["changes"] == plan["changes"]
    assert (await console.client.get(f"/api/governance/virtual-keys/{key['id']}")).json()["virtual_key"]["budgets"][0][
        "max_limit"
    ] == 0.25
    with console.store.database.read() as connection:
        rows = connection.execute("SELECT actor, action, kind, reason FROM audit ORDER BY sequence DESC LIMIT 1")
    assert rows == [("admin token", "update", "virtual_key", "the review")]
    document["governance"]["virtual_keys"][0]["budgets"][0]["max_limit"] = 0.75
    assert (await sent(console, document, tag=plan["tag"])).status_code == 412


async def test_new_keys_tell_their_values_once_they_are_made(console: Console) -> None:
    text = '[[governance.virtual_keys]]\nname = "fresh"\nprovider_configs = [{ provider = "openai" }]\n'
    plan = (await sent(console, text, dry_run="true")).json()
    assert plan["new_keys"] == ["fresh"] and "new_values" not in plan
    done = (await sent(console, text)).json()
    (made,) = done["new_values"]
    quota = await console.client.get("/api/governance/virtual-keys/quota", headers={"x-bf-vk": made["value"]})
    assert quota.status_code == 200 and quota.json()["virtual_key_name"] == "fresh"


async def test_secrets_leave_only_when_asked_for_and_that_is_noted(console: Console) -> None:
    key = await made_key(console)
    assert key["value"] not in await exported(console)
    assert key["value"] in await exported(console, secrets="true")
    with console.store.database.read() as connection:
        assert connection.execute("SELECT actor, action FROM audit ORDER BY sequence DESC LIMIT 1") == [
            ("admin token", "export secrets")
        ]


@pytest.mark.parametrize(
    ("content", "media", "words"),
    [
        ("[a", "application/toml", "the file is not valid TOML: "),
        ("{", "application/json", "the file is not valid JSON: "),
        ("[]", "application/json", "must be a JSON object"),
        ("\\xff", "application/toml", "the file is not valid TOML"),
        ('[governance]\nteems = []\n', "application/toml", "the file: governance.teems: unknown key; did you mean 'teams'?"),
        ('[[prompts]]\nname = "p"\n', "application/toml", "prompts[0]: needs text"),
        ('prompts = 7\n', "application/toml", "prompts: must be a list"),
        ("a = " + "[" * 3000 + "]" * 3000, "application/toml", "nested too deeply"),
    ],
)  # fmt: skip
async def test_a_wrong_file_is_a_400_with_its_place(console: Console, content: str, media: str, words: str) -> None:
    answer = await console.client.post(PATH, content=content.encode(), headers={"Content-Type": media})
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


async def test_strangers_and_unknown_parameters_are_refused(console: Console) -> None:
    async with console.stranger() as stranger:
        assert (await stranger.get("/api/governance/export")).status_code == 401
        assert (await stranger.post(PATH, content=b"{}")).status_code == 401
    assert "did you mean 'prune'" in (await sent(console, {}, prun="true")).json()["error"]["message"]


@pytest.mark.parametrize("engine", ["sqlite"])
async def test_a_file_may_be_larger_than_other_bodies(start_console: StartConsole) -> None:
    console = await start_console()
    teams = [{"name": f"team-{number:04}-{'x' * 180}"} for number in range(12_000)]
    text = json.dumps({"governance": {"teams": [{"name": "a"}]}, "prompts": [], "$schema": json.dumps(teams)})
    assert len(text) > 2 * 1024 * 1024
    answer = await console.client.post(PATH, params={"dry_run": "true"}, content=text.encode(), timeout=60)
    assert answer.status_code == 200 and len(answer.json()["changes"]) == 1
