"""Stores and sockets before there are children; ports in use are tested with the supervisor, seeding with the store."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from addons.process.options import ServeOptions
from addons.process.prepare import open_all, port_of, prepare_stores, url_of
from store.errors import UserError
from store.settings import Settings, settings_from

OPTIONS = ServeOptions(Path(), port=0, inspect_port=0, console_port=0)


def settings(**document: object) -> Settings:
    return settings_from(document, {}, source="config.json")


@pytest.mark.parametrize(
    "host,url",
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("gateway.example", "http://gateway.example:80"),
        ("", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("2001:db8::5", "http://[2001:db8::5]:80"),
    ],
)
def test_an_address_to_listen_on_becomes_one_to_connect_to(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def test_what_is_prepared_is_reported_and_a_second_time_is_harmless(tmp_path: Path) -> None:
    key = {"name": "vendor", "value": "sk-bf-vendor-000000000000"}
    provider = {"keys": [{"name": "main", "value": "env.NOWHERE_SET", "models": ["*"], "weight": 1.0}]}
    given = settings(governance={"virtual_keys": [key]}, providers={"openai": provider})
    options = replace(OPTIONS, app_dir=tmp_path)
    report, unusable = prepare_stores(options, given)
    assert report.seeded and len(unusable) == 1 and "NOWHERE_SET" in unusable[0]
    assert (tmp_path / "config.db").exists() and (tmp_path / "logs.db").exists()
    again, _ = prepare_stores(options, given)
    assert not again.seeded and any("vendor" in name for name in again.ignored)
    assert prepare_stores(replace(options, reseed=True), given)[0].seeded


def test_logs_that_cannot_be_read_may_be_moved_away(tmp_path: Path) -> None:
    (tmp_path / "logs.db").write_bytes(b"this is a text, not a database. " * 200)
    with pytest.raises(UserError, match="holds logs and no budgets: move it away"):
        prepare_stores(replace(OPTIONS, app_dir=tmp_path), settings())


def test_every_port_is_open_and_the_gateways_own_close_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = taken.getsockname()[1]
    opened = open_all(OPTIONS, settings(gateway={"listeners": [{"port": listener, "virtual_key": "default"}]}))
    try:
        groups = [opened.gateway, *opened.listeners, opened.console, opened.inspect, opened.feed]
        ports = [port_of(group) for group in groups]
        assert len(set(ports)) == 5 and ports[1] == listener
        for port in ports:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        opened.close_gateway()
        for port, there in zip(ports, (False, False, True, True, True), strict=True):
            with socket.socket() as sock:
                assert (sock.connect_ex(("127.0.0.1", port)) == 0) is there
    finally:
        opened.close()


def test_without_an_inspector_there_is_no_feed() -> None:
    opened = open_all(replace(OPTIONS, inspect=False), settings())
    assert (opened.inspect, opened.feed, opened.listeners) == ([], [], [])
    opened.close()
    assert json.dumps([sock.fileno() for sock in opened.gateway]) == "[-1]"
