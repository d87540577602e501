"""The console process without its supervisor: dashboard, API and inspector on inherited sockets, and its end."""

import json
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from addons.process.console import WithoutTokens
from addons.process.options import ChildSpec
from addons.sockets import open_sockets
from tests.addons.process.one_child import OneChild, seeded

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children inherit sockets by number")

INSPECT_TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class Console:
    child: OneChild
    app_dir: Path
    url: str
    inspector: str

    def get(self, url: str, **headers: str) -> httpx.Response:
        return httpx.get(url, headers=headers, trust_env=False, timeout=10)

    def token(self) -> str:
        return (self.app_dir / "admin.token").read_text().strip()


def start(app_dir: Path, *, inspect: bool, console_host: str = "127.0.0.1", config: Path | None = None) -> Console:
    groups = [open_sockets("127.0.0.1", 0) for _ in range(3 if inspect else 1)]
    seeded(app_dir)
    ports = [sockets[0].getsockname()[1] for sockets in groups]
    fds = [(sockets[0].fileno(),) for sockets in groups]
    spec = ChildSpec(
        "console", str(app_dir), str(config) if config else None, "127.0.0.1", 18080, console_host, ports[0],
        ports[1] if inspect else None, console_fds=fds[0], inspect_fds=fds[1] if inspect else (),
        feed_fds=fds[2] if inspect else (), feed_port=ports[2] if inspect else 0, feed_token="feed-token",
        inspect_token=INSPECT_TOKEN, version="9.9.9",
    )  # fmt: skip
    child = OneChild(spec, [sock for sockets in groups for sock in sockets])
    for sockets in groups:
        for sock in sockets:
            sock.close()
    return Console(child, app_dir, f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}" if inspect else "")


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    made = start(tmp_path_factory.mktemp("console"), inspect=True)
    with made.child:
        assert made.child.line() == "ready\n"
        yield made


def test_it_is_healthy_and_says_its_version(console: Console) -> None:
    health = console.get(f"{console.url}/health")
    assert health.status_code == 200 and health.json()["components"] == {"db_pings": "ok"}
    assert "9.9.9" in console.get(f"{console.url}/api/version", authorization=f"Bearer {console.token()}").text


def test_the_management_api_asks_for_the_token_of_the_app_directory(console: Console) -> None:
    url = f"{console.url}/api/governance/virtual-keys"
    assert console.get(url).status_code == 401
    assert console.get(url, authorization="Bearer wrong").status_code == 401
    found = console.get(url, authorization=f"Bearer {console.token()}")
    assert found.status_code == 200
    assert [key["name"] for key in found.json()["virtual_keys"]] == ["default"]


def test_the_inspector_asks_for_a_token_of_its_own(console: Console) -> None:
    assert console.get(f"{console.inspector}/flows").status_code == 403
    assert console.get(f"{console.inspector}/flows?token={console.token()}").status_code == 403
    found = console.get(f"{console.inspector}/flows?token={INSPECT_TOKEN}")
    assert found.status_code == 200 and found.json() == []
    assert console.get(f"{console.inspector}/nothing?token={INSPECT_TOKEN}").status_code == 403


def test_the_terminals_interrupt_is_not_for_it_and_the_end_of_the_lifeline_is(console: Console) -> None:
    """Last of those that share it."""
    console.child.process.send_signal(signal.SIGINT)
    assert console.get(f"{console.url}/health").status_code == 200
    console.child.drop_lifeline()
    code, _, complained = console.child.end()
    assert code == 0 and "Traceback" not in complained
    # The inspector's web server tells of those it turned away, with the address they asked for.
    assert "403 GET /flows?token=[redacted]" in complained and "403 GET /nothing?token=[redacted]" in complained
    assert console.token() not in complained and INSPECT_TOKEN not in complained
    with pytest.raises(httpx.ConnectError):
        console.get(f"{console.url}/health")


@pytest.mark.parametrize(
    "message,arguments,wanted",
    [
        ("%d %s %.2fms", (404, "GET /x?token=secret&a=b (::1)", 1.5), "404 GET /x?token=[redacted]&a=b (::1) 1.50ms"),
        ("Request(uri='/?a=b&token=secret', version='1.1')", None, "Request(uri='/?a=b&token=[redacted]', version='1.1')"),
        ("no token here: %s", ("100%",), "no token here: 100%"),
        ("/?token=", None, "/?token="),
    ],
)  # fmt: skip
def test_no_token_gets_into_the_log(message: str, arguments: tuple[object, ...] | None, wanted: str) -> None:
    record = logging.LogRecord("tornado.access", logging.WARNING, __file__, 1, message, arguments, None)
    assert WithoutTokens().filter(record) is True
    assert record.getMessage() == wanted


def test_without_an_inspector_it_is_told_to_end_by_sigterm(tmp_path: Path) -> None:
    made = start(tmp_path, inspect=False)
    with made.child as child:
        assert child.line() == "ready\n"
        assert made.get(f"{made.url}/health").status_code == 200
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == (0, "", "")


def test_a_console_that_anybody_could_open_does_not_start(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auth_config": {"is_enabled": False}}))
    with start(tmp_path, inspect=False, console_host="0.0.0.0", config=config).child as child:
        code, printed, complained = child.end()
    assert (code, printed) == (2, "")
    (line,) = complained.splitlines()
    assert line.startswith("tollgate: auth_config.is_enabled") and "--console-host" in line
