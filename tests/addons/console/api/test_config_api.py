"""`GET` and `PUT /api/config`: the settings in force, and what of them can be changed without a restart."""

from typing import Any

import pytest

CONFIG = "/api/config"
FILE = {"client": {"log_retention_days": 30}, "auth_config": {"admin_username": "ann", "admin_password": "pass:word"}}


async def test_what_was_read_can_be_changed_and_sent_back(start_console: Any) -> None:
    console = await start_console(FILE)
    client = console.client
    read = await client.get(CONFIG)
    body = read.json()
    assert body["client_config"]["log_retention_days"] == 30 and body["stored_client_config"] == {}
    assert body["restart_required"] == {"required": False, "reason": ""}
    assert "pass:word" not in read.text
    body["client_config"]["log_retention_days"] = 7
    tag = {"If-Match": read.headers["etag"]}
    done = await client.put(CONFIG, json=body, headers=tag)
    assert done.status_code == 200, done.text
    assert (done.json()["status"], done.json()["client_config"]["log_retention_days"]) == ("success", 7)
    after = (await client.get(CONFIG)).json()
    assert after["stored_client_config"] == {"log_retention_days": 7} and after["client_config"]["log_retention_days"] == 7
    assert (await client.put(CONFIG, json=body, headers=tag)).status_code == 412
    assert (await client.put(CONFIG, json={"client_config": {"log_retention_days": None}})).status_code == 200
    assert (await client.get(CONFIG)).json()["client_config"]["log_retention_days"] == 30


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"client_config": {"log_retention_days": 0}}, "client_config.log_retention_days"),
        ({"client_config": {"log_retention_day": 1}}, "did you mean 'log_retention_days'"),
        ({"client_config": {"drop_excess_requests": True}}, "drop_excess_requests is not implemented"),
        ({"client_config": {"allowed_origins": ["example.com"]}}, "is no web origin"),
        ({"framework_config": {"pricing_url": "https://example.com"}}, "framework_config.pricing_url: is not implemented"),
        ({"auth_config": {"is_enabled": False}}, "auth_config.is_enabled: stands in config.json"),
        ({"auth_config": {"admin_username": "eve", "admin_password": "…"}}, "auth_config.admin_username: stands in config.json"),
        ({"clientconfig": {}}, "did you mean 'client_config'"),
    ],
)
async def test_what_cannot_be_changed_is_refused_by_name(start_console: Any, body: dict[str, Any], words: str) -> None:
    console = await start_console(FILE)
    answer = await console.client.put(CONFIG, json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"], answer.text
    assert (await console.client.get(CONFIG)).json()["stored_client_config"] == {}


async def test_strangers_change_nothing(console: Any) -> None:
    async with console.stranger() as stranger:
        assert (await stranger.put(CONFIG, json={"client_config": {"enable_logging": False}})).status_code == 401
