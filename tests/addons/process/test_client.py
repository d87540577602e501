"""Calls to a console: every answer that is no success becomes one sentence, and nothing is sent where it should not go."""

import json
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from addons.process.client import ConsoleClient, GatewayUnreachable, find_running, read_run_file
from store.errors import Conflict, NotFound, UserError


class Console(BaseHTTPRequestHandler):
    """Answers as its path says: /STATUS, with the body given in the query."""

    seen: list[tuple[str, str, str | None, bytes]] = []

    def log_message(self, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, _, text = self.path[1:].partition("?")
        content = text.encode() or json.dumps({"error": {"message": f"because {status}"}}).encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET


@pytest.fixture
def console() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Console)
    Console.seen.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_success_is_read_exactly(console: str, tmp_path: Path) -> None:
    answer = ConsoleClient(console, "tok", tmp_path).call("POST", '/200?{"amount":0.000000001}', {"a": "ü"})
    assert answer == {"amount": Decimal("0.000000001")}
    assert Console.seen == [("POST", '/200?{"amount":0.000000001}', "Bearer tok", b'{"a": "\\u00fc"}')]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, UserError, "because 400"),
        (401, UserError, "does not accept the token"),
        (404, NotFound, "because 404"),
        (409, Conflict, "because 409"),
        (412, Conflict, "because 412"),
        (500, GatewayUnreachable, "because 500"),
    ],
)
def test_errors_keep_the_servers_words(console: str, tmp_path: Path, status: int, kind: type[UserError], words: str) -> None:
    with pytest.raises(kind, match=words):
        ConsoleClient(console, "tok", tmp_path).get(f"/{status}")


def test_an_error_that_is_no_json_names_the_status(console: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="answered 418"):
        ConsoleClient(console, None, tmp_path).get("/418?<html>")


def test_the_callers_proxy_has_no_say(console: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert ConsoleClient(console, "tok", tmp_path).get("/200?{}") == {}


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(GatewayUnreachable, match="does not answer"):
        ConsoleClient("http://127.0.0.1:9", "tok", tmp_path).get("/x")


def run_file(directory: Path, **changes: Any) -> None:
    record = {"pid": 1, "gateway": "http://0.0.0.0:8080", "console": "http://[::]:8082", "inspector": "http://127.0.0.1:8081"}
    (directory / "run.json").write_text(json.dumps(record | changes))


def test_every_interface_becomes_an_address_to_connect_to(tmp_path: Path) -> None:
    run_file(tmp_path)
    (tmp_path / "admin.token").write_text("secret-token\n")
    found = read_run_file(tmp_path)
    assert found is not None
    assert (found.gateway, found.console, found.inspector) == (
        "http://127.0.0.1:8080",
        "http://[::1]:8082",
        "http://127.0.0.1:8081",
    )
    assert found.token == "secret-token" and "secret-token" not in repr(found)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1}', "\udcff"])
def test_a_run_file_that_is_none_counts_as_not_running(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_run_file(tmp_path) is None and find_running(tmp_path) is None
