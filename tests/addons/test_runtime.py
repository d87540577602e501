"""What the addon runs on: policy and limits as the settings say, stores opened and closed, addresses that follow the snapshot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.policy import AssumedPrice, Policy
from addons.proxy.limits import Limits
from addons.runtime import (
    Address,
    NoLogs,
    Runtime,
    UpstreamAddresses,
    egress_of,
    limits_of,
    open_runtime,
    policy_of,
)
from addons.snapshots import SnapshotKeeper
from store.clock import Ids, SystemClock
from store.config_store.change_providers import put_provider
from store.config_store.fields import loads_exact
from store.config_store.snapshot import Provider, Snapshot
from store.config_store.specs import ProviderSpec
from store.config_store.store import ConfigStore
from store.errors import StoreUnavailable, UserError
from store.settings import Settings, settings_from
from tests.support.calls import snapshot

LOOPBACK = Address("127.0.0.1", 8080)


def settings(document: dict[str, Any] | None = None) -> Settings:
    return settings_from(document or {}, {}, source="config.json")


def policy(document: dict[str, Any] | None = None, address: Address = LOOPBACK) -> Policy:
    return policy_of(settings(document), address, {})


# -- policy


def test_without_settings_the_policy_is_the_contracts() -> None:
    found = policy()
    assert (found.enforce_auth, found.default_virtual_key, found.allow_direct_keys, found.allowed_origins) == (
        True,
        None,
        False,
        (),
    )
    assert (found.unpriced, found.unmetered, found.trim_output, found.min_output_tokens) == ("block", "block", True, 256)
    assert found.own_names == {"localhost", "127.0.0.1", "::1"} and found.own_port == 8080
    assert dict(found.listener_keys) == {}
    assert (found.max_body_bytes, found.body_log_bytes) == (33_554_432, 65_536)
    assert found.codex_usage_limit is True


@pytest.mark.parametrize(
    "section,key,value,field,wanted",
    [
        ("client", "enforce_auth_on_inference", False, "enforce_auth", False),
        ("client", "allow_direct_keys", True, "allow_direct_keys", True),
        ("client", "allowed_origins", ["https://a.example", "https://b.example"], "allowed_origins", ("https://a.example", "https://b.example")),
        ("client", "disable_content_logging", True, "body_log_bytes", 0),
        ("gateway", "unpriced", "allow", "unpriced", "allow"),
        ("gateway", "unmetered", "allow", "unmetered", "allow"),
        ("gateway", "trim_output", False, "trim_output", False),
        ("gateway", "min_output_tokens", 17, "min_output_tokens", 17),
        ("gateway", "limits", {"max_body_mb": 3}, "max_body_bytes", 3_145_728),
    ],
)  # fmt: skip
def test_each_setting_reaches_its_field_and_no_other(section: str, key: str, value: object, field: str, wanted: object) -> None:
    found = policy({section: {key: value}})
    assert getattr(found, field) == wanted
    assert replace(found, **{field: getattr(policy(), field)}) == policy()


def test_keys_of_callers_that_send_none() -> None:
    listeners = [{"port": 8090, "virtual_key": "vendor"}, {"port": 8091, "virtual_key": "other"}]
    keys = {"governance": {"virtual_keys": [{"name": name, "value": f"sk-bf-{name}-000000000000"} for name in ("vendor", "other")]}}
    found = policy({"gateway": {"default_virtual_key": "vendor", "listeners": listeners}, **keys})
    assert found.default_virtual_key == "vendor"
    assert dict(found.listener_keys) == {8090: "vendor", 8091: "other"}
    with pytest.raises(TypeError):
        found.listener_keys[8092] = "x"  # type: ignore[index]


@pytest.mark.parametrize(
    "host,public_url,more",
    [
        ("127.0.0.1", None, set()),
        ("Gateway.Example", None, {"gateway.example"}),
        ("0.0.0.0", "https://LLM.example:8443/base", {"0.0.0.0", "llm.example"}),
        ("127.0.0.1", "http://[2001:db8::5]:8080", {"2001:db8::5"}),
    ],
)
def test_the_gateways_own_names(host: str, public_url: str | None, more: set[str]) -> None:
    found = policy({"gateway": {"public_url": public_url}}, Address(host, 9000))
    assert found.own_names == {"localhost", "127.0.0.1", "::1"} | more
    assert found.own_port == 9000


PRICE_TEXTS = st.decimals(min_value=0, max_value=10_000, places=9)


@pytest.mark.parametrize(
    "usd_per_million,picos_per_token",
    [
        ("0", 0),
        ("1", 1_000_000),
        ("2.5", 2_500_000),
        ("0.15", 150_000),
        ("0.075", 75_000),
        ("0.000001", 1),
        ("0.1234567", 123_457),  # 123,456.7: rounded up
        ("0.000000001", 1),  # a thousandth of a pico-dollar is still not free
        ("75", 75_000_000),
    ],
)
def test_an_assumed_price_is_exact_in_pico_dollars_per_token(usd_per_million: str, picos_per_token: int) -> None:
    text = f'{{"gateway": {{"unpriced": {{"input_per_million_usd": {usd_per_million}, "output_per_million_usd": 0}}}}}}'
    assert policy(loads_exact(text)).unpriced == AssumedPrice(picos_per_token, 0)
    text = text.replace('"output_per_million_usd": 0', f'"output_per_million_usd": {usd_per_million}')
    assert policy(loads_exact(text)).unpriced == AssumedPrice(picos_per_token, picos_per_token)


@given(PRICE_TEXTS)
def test_an_assumed_price_is_never_below_what_was_named_nor_a_pico_dollar_above(usd: Decimal) -> None:
    found = policy({"gateway": {"unpriced": {"input_per_million_usd": str(usd), "output_per_million_usd": "1"}}}).unpriced
    assert isinstance(found, AssumedPrice) and isinstance(found.input_picos, int)
    # By way of dollars per token, in fractions: another road to the same figure.
    exact = Fraction(usd) / 1_000_000 * 10**12
    assert exact <= found.input_picos < exact + 1


# -- limits and address


def test_limits_are_those_of_the_settings() -> None:
    assert limits_of(settings()) == Limits()
    given_limits = {
        "max_body_mb": 2, "max_header_kb": 3, "max_connections": 4, "header_timeout_seconds": 5, "connect_timeout_seconds": 6,
        "first_byte_timeout_seconds": 7, "idle_stream_timeout_seconds": 8,
    }  # fmt: skip
    found = limits_of(settings({"gateway": {"limits": given_limits}}))
    assert found == Limits(2_097_152, 3_072, 4, 5.0, 6.0, 7.0, 8.0)


@pytest.mark.parametrize(
    "host,on_loopback",
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False), ("::", False), ("10.0.0.1", False)],
)
def test_which_addresses_are_loopback(host: str, on_loopback: bool) -> None:
    assert Address(host).on_loopback is on_loopback


# -- where calls may go


def test_own_ports_are_out_of_reach_wherever_it_listens() -> None:
    egress = egress_of(
        settings({"gateway": {"forward": {"allow": ["127.0.0.0/8"]}}}), Address("0.0.0.0", 8080, (8081, 8090)), _nobody
    )
    assert [egress.check("127.0.0.1", port) for port in (8080, 8081, 8090)] == ["that is one of its own ports"] * 3
    assert egress.check("127.0.0.1", 9999) is None
    assert egress.check("10.0.0.1", 443) is not None


@pytest.mark.parametrize("entry", ["10.0.0.0/99", "not a/network", " "])
def test_an_allowed_entry_that_is_no_network_names_the_setting(entry: str) -> None:
    with pytest.raises(UserError, match=r"gateway\.forward\.allow: .*10\.0\.0\.0/8"):
        egress_of(settings({"gateway": {"forward": {"allow": ["10.0.0.0/8", entry]}}}), LOOPBACK, _nobody)


def _nobody(host: str, port: int) -> bool:
    return False


def _keeper(first: Snapshot, *following: Snapshot) -> SnapshotKeeper:
    rest = list(following)
    return SnapshotKeeper(lambda before: rest.pop(0), lambda: first.revision, first)


def _at(revision: int, **urls: str | None) -> Snapshot:
    return snapshot(revision=revision, providers={name: Provider(name, "openai", base_url=url) for name, url in urls.items()})


@pytest.mark.parametrize(
    "url,address",
    [
        ("http://10.1.2.3:9000/v1", ("10.1.2.3", 9000)),
        ("https://llm.example", ("llm.example", 443)),
        ("http://llm.example", ("llm.example", 80)),
        ("https://LLM.Example/v1", ("llm.example", 443)),
        ("http://[fd00::1]:8000", ("fd00::1", 8000)),
    ],
)
def test_a_configured_base_url_is_trusted_with_its_port_only(url: str, address: tuple[str, int]) -> None:
    trusted = UpstreamAddresses(_keeper(_at(1, mine=url)))
    host, port = address
    assert trusted(host, port)
    assert not trusted(host, port + 1) and not trusted("other.example", port)


def test_addresses_without_a_base_url_are_not_trusted() -> None:
    trusted = UpstreamAddresses(_keeper(_at(1, mine=None)))
    assert not trusted("", 80) and not trusted("api.openai.com", 443)


async def test_trusted_addresses_follow_the_snapshot() -> None:
    keeper = _keeper(_at(1, mine="http://10.0.0.1:1000"), _at(2, mine="http://10.0.0.2:1000"))
    trusted = UpstreamAddresses(keeper)
    assert (trusted("10.0.0.1", 1000), trusted("10.0.0.2", 1000)) == (True, False)
    await keeper.refresh(2)
    assert (trusted("10.0.0.1", 1000), trusted("10.0.0.2", 1000)) == (False, True)


def test_trusted_addresses_are_gathered_once_a_revision() -> None:
    class Counting(dict[str, Provider]):
        reads = 0

        def values(self) -> Any:
            Counting.reads += 1
            return super().values()

    first = replace(_at(1), providers=MappingProxyType(Counting({"mine": Provider("mine", "openai", "http://10.0.0.1:1000")})))
    trusted = UpstreamAddresses(_keeper(first))
    assert all(trusted("10.0.0.1", 1000) for _ in range(5))
    assert Counting.reads == 1


# -- opening and closing


@asynccontextmanager
async def opened(app_dir: Path, document: dict[str, Any] | None = None, address: Address = LOOPBACK) -> AsyncIterator[Runtime]:
    runtime = await open_runtime(app_dir, settings(document), address, version="1.2.3", environ={})
    try:
        yield runtime
    finally:
        await runtime.close()


def _databases(app_dir: Path) -> list[str]:
    return sorted(path.name for path in app_dir.glob("*.db"))


async def test_a_runtime_may_be_closed_twice_and_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        async with opened(tmp_path) as runtime:
            assert runtime.services.snapshots.current.providers["openai"].dialect_family == "openai"
            assert runtime.services.policy == policy()
            assert (runtime.draining, runtime.grace_over, runtime.owned_by_addon) == (False, False, False)
            await runtime.close()
    assert _databases(tmp_path) == ["config.db", "logs.db"]
    with pytest.raises(StoreUnavailable), runtime.database.read() as connection:
        connection.execute("SELECT 1")


async def test_health_is_asked_of_the_store_and_bad_once_it_is_gone(tmp_path: Path) -> None:
    async with opened(tmp_path) as runtime:
        assert runtime.local.health() == {"db_pings": "ok"}
    assert runtime.local.health() is None


@pytest.mark.parametrize(
    "document,kept",
    [
        ({}, True),
        ({"client": {"enable_logging": False}}, False),
        ({"logs_store": {"enabled": False}}, False),
    ],
)
async def test_rows_are_kept_unless_logging_is_off(tmp_path: Path, document: dict[str, Any], kept: bool) -> None:
    async with opened(tmp_path, document) as runtime:
        assert (runtime.services.logs is runtime.logs) is kept
        assert isinstance(runtime.services.logs, NoLogs) is not kept


@pytest.mark.parametrize(
    "host,document,wanted",
    [
        ("127.0.0.1", {}, ("tunnel", False)),
        ("0.0.0.0", {}, ("deny", True)),
        ("0.0.0.0", {"gateway": {"forward": {"unmatched": "tunnel", "require_auth": False}}}, ("tunnel", False)),
        ("127.0.0.1", {"gateway": {"forward": {"unmatched": "deny", "require_auth": True}}}, ("deny", True)),
    ],
)
async def test_it_is_open_on_loopback_and_closed_elsewhere(
    tmp_path: Path, host: str, document: dict[str, Any], wanted: tuple[str, bool]
) -> None:
    async with opened(tmp_path, document, Address(host, 8080)) as runtime:
        assert (runtime.unmatched, runtime.require_auth) == wanted
        assert runtime.egress.listening_on_loopback is (host == "127.0.0.1")
        assert runtime.upstream_proxy is None


async def test_stores_and_proxy_are_where_the_settings_say(tmp_path: Path) -> None:
    document = {
        "config_store": {"config": {"path": "mine.db"}},
        "logs_store": {"config": {"path": "rows.db"}},
        "gateway": {"upstream_proxy": "http://user:secret@proxy.example:3128"},
    }
    async with opened(tmp_path, document) as runtime:
        assert runtime.upstream_proxy is not None
        assert runtime.upstream_proxy.spec == ("http", ("proxy.example", 3128))
        assert "secret" not in repr(runtime.upstream_proxy)
    assert _databases(tmp_path) == ["mine.db", "rows.db"]


async def test_a_governance_edit_elsewhere_makes_its_address_trusted(tmp_path: Path) -> None:
    async with opened(tmp_path, address=Address("0.0.0.0", 8080)) as runtime:
        host, port = "10.9.8.7", 8000
        trusted = UpstreamAddresses(runtime.snapshots)
        assert not trusted(host, port)
        clock = SystemClock()
        store = ConfigStore(runtime.database, clock, Ids(clock))
        spec = ProviderSpec.model_validate({"network_config": {"base_url": f"http://{host}:{port}/v1"}})
        with store.changing() as connection:
            put_provider(store, connection, "openai", spec, path="providers.openai")
        assert await runtime.snapshots.look()
        assert trusted(host, port)


@pytest.mark.parametrize(
    "document,words",
    [
        ({"gateway": {"prices": {"file": "missing.json"}}}, "missing.json"),
        ({"gateway": {"forward": {"allow": ["10.0.0.0/99"]}}}, "gateway.forward.allow"),
    ],
)
async def test_what_the_operator_can_mend_is_a_user_error(tmp_path: Path, document: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        await open_runtime(tmp_path, settings(document), LOOPBACK, version="1.2.3", environ={})


async def test_a_log_file_that_is_no_database_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "logs.db").write_bytes(b"a text, not a database. " * 100)
    with pytest.raises(UserError, match="logs.db"):
        await open_runtime(tmp_path, settings(), LOOPBACK, version="1.2.3", environ={})
