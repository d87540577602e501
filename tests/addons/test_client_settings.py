"""A snapshot with other `client` settings gives the services another policy, and logs and inspector other bounds."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from addons.client_settings import ClientSettings
from addons.policy import Policy
from addons.runtime import Address, NoLogs, policy_of
from addons.services import Services
from store.settings import Settings, settings_from
from tests.support import calls


class Logs:
    def __init__(self) -> None:
        self.kept: list[tuple[int, int | None]] = []

    def keep(self, *, body_bytes: int, retention_days: int | None) -> None:
        self.kept.append((body_bytes, retention_days))


class Feed:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, bodies: Any) -> None:
        self.kept.append(bodies)


def made(document: dict[str, Any] | None = None) -> tuple[ClientSettings, Any, Any, Services, Any]:
    logs, feed, nothing = Logs(), Feed(), NoLogs()
    settings = settings_from(document or {}, {}, source="config.json")

    def policy(found: Settings) -> Policy:
        return policy_of(found, Address(), {})

    client = ClientSettings(settings, logs, nothing, policy, feed)  # type: ignore[arg-type]
    services = calls.services(calls.snapshot({}))
    services.policy, services.logs = client.first(calls.snapshot({}))
    return client, logs, feed, services, nothing


def with_client(**fields: Any) -> Any:
    return replace(calls.snapshot({}), client=MappingProxyType(fields))


def test_services_follow() -> None:
    client, logs, feed, services, nothing = made({"client": {"allow_direct_keys": True}})
    follow = client.follow(services)
    assert (services.policy.enforce_auth, services.policy.allow_direct_keys, services.logs) == (True, True, logs)
    assert logs.kept == [(65536, 365)] and feed.kept == [65536]
    follow(with_client(enforce_auth_on_inference=False, enable_logging=False, disable_content_logging=True, log_retention_days=3))
    assert (services.policy.enforce_auth, services.policy.allow_direct_keys) == (False, True)
    assert (services.policy.body_log_bytes, services.logs) == (0, nothing)
    assert logs.kept[-1] == (0, 3) and feed.kept[-1] == "none"
    follow(with_client())
    assert (services.policy.enforce_auth, services.logs, logs.kept[-1]) == (True, logs, (65536, 365))


def test_another_snapshot_with_the_same_settings_changes_nothing() -> None:
    client, logs, _, services, _ = made()
    follow = client.follow(services)
    before = services.policy
    follow(replace(calls.snapshot({}), revision=99))
    assert services.policy is before and len(logs.kept) == 1


def test_settings_that_cannot_be_taken_over_leave_the_last_ones(caplog: pytest.LogCaptureFixture) -> None:
    client, logs, _, services, _ = made()
    before = services.policy

    def broken(**_: Any) -> None:
        raise RuntimeError("no")

    logs.keep = broken
    client.follow(services)(with_client(enforce_auth_on_inference=False))
    assert services.policy is before and "the last ones stay in force" in caplog.text


def test_the_file_goes_before_for_the_retention_of_the_logs_own_section() -> None:
    client, logs, _, services, _ = made({"logs_store": {"retention_days": 9}})
    client.follow(services)(with_client(log_retention_days=3))
    assert logs.kept[-1] == (65536, 9)
