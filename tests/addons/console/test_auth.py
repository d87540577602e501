"""Who gets in, and how the console keeps everybody else out."""

import base64
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from addons.console.auth import Gatekeeper, ensure_admin_token, rotate_admin_token
from addons.console.origin import HostRules
from store.clock import SystemClock
from store.errors import SettingsError, UserError
from store.settings import Settings, settings_from

KEYS = "/api/governance/virtual-keys"
TOKEN = "test-admin-token-0123456789abcdefghij"
PASSWORD = {"auth_config": {"admin_username": "ann", "admin_password": "pass:word", "is_enabled": True}}


@pytest.fixture
def engine() -> str:
    return "sqlite"


def settings(document: dict[str, Any]) -> Settings:
    return settings_from(document, {}, source="config.json")


def test_the_token_file_is_made_once_and_private(tmp_path: Path) -> None:
    path = tmp_path / "app" / "admin.token"
    token = ensure_admin_token(path)
    assert len(token) >= 40 and ensure_admin_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert rotate_admin_token(path) != token and ensure_admin_token(path) != token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["admin.token"]


def test_a_token_file_that_is_no_good_says_so(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("abc\n")
    with pytest.raises(UserError, match="too short to be safe; delete the file"):
        ensure_admin_token(tmp_path / "short")
    (tmp_path / "dir").mkdir()
    with pytest.raises(UserError, match="cannot read or make the admin token"):
        ensure_admin_token(tmp_path / "dir")


async def test_nothing_is_told_to_strangers(console: Any) -> None:
    async with console.stranger() as stranger:
        for path in (KEYS, "/api/config", "/api/logs", "/api/providers", "/metrics", "/api/governance/budgets"):
            answer = await stranger.get(path)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["message"].startswith("Unauthorized")
        for header in ("Bearer wrong", "Bearer", f"Basic {TOKEN}", TOKEN, "Bearer ü", "Basic ü"):
            answer = await stranger.get(KEYS, headers={"Authorization": header.encode("latin-1")})
            assert answer.status_code == 401
        state = (await stranger.get("/api/session/is-auth-enabled")).json()
        assert state == {"is_auth_enabled": True, "has_valid_token": False, "auth_type": "token"}


async def test_the_link_signs_in_and_the_address_forgets_the_token(console: Any) -> None:
    async with console.stranger() as browser:
        assert (await browser.get("/", params={"token": "wrong"})).status_code == 401
        answer = await browser.get("/", params={"token": TOKEN})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert (await browser.get(KEYS)).status_code == 200
        state = (await browser.get("/api/session/is-auth-enabled")).json()
        assert state["has_valid_token"] is True

        refused = await browser.post(KEYS, json={"name": "a"})
        assert refused.status_code == 403 and "X-CSRF-Token" in refused.json()["error"]["message"]
        made = await browser.post(KEYS, json={"name": "a"}, headers={"X-CSRF-Token": state["csrf_token"]})
        assert made.status_code == 200

        await browser.post("/api/session/logout")
        assert (await browser.get(KEYS)).status_code == 401


async def test_sessions_survive_a_restart_but_not_a_new_token(start_console: Any) -> None:
    first = await start_console()
    async with first.stranger() as browser:
        await browser.get("/", params={"token": TOKEN})
        cookies = {cookie.name: cookie.value or "" for cookie in browser.cookies.jar}
    second = await start_console()
    async with second.stranger(cookies=cookies) as browser:
        assert (await browser.get(KEYS)).status_code == 200
    third = await start_console(token="another-token-0123456789abcdefghijkl")
    async with third.stranger(cookies=cookies) as browser:
        assert (await browser.get(KEYS)).status_code == 401


async def test_sessions_end(console: Any) -> None:
    async with console.stranger() as browser:
        await browser.get("/", params={"token": TOKEN})
        console.clock.ahead_seconds = 29 * 86_400
        assert (await browser.get(KEYS)).status_code == 200
        console.clock.ahead_seconds = 31 * 86_400
        assert (await browser.get(KEYS)).status_code == 401


def test_forged_sessions_do_not_open() -> None:
    gatekeeper = Gatekeeper(TOKEN, settings({}), SystemClock())
    session = gatekeeper.new_session()
    assert gatekeeper.session_ok(session)
    ends, nonce, signature = session.split(".")
    for forged in (
        f"{int(ends) + 1}.{nonce}.{signature}",
        f"{ends}.{nonce}.",
        f"..{signature}",
        "",
        session[:-1],
        f"{session}0",
        "é.é.é",
    ):
        assert not gatekeeper.session_ok(forged)
    assert not Gatekeeper("x" * 40, settings({}), SystemClock()).session_ok(session)
    assert not gatekeeper.csrf_ok(session, gatekeeper.csrf_token(gatekeeper.new_session()))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:1"}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:8082"}, 200),
        ({"Host": "192.168.1.7:8082"}, 200),
        ({"Host": "gate.example.com"}, 200),
        ({"Host": "console.internal"}, 200),
        ({"Host": "console.internal@evil.example"}, 400),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://gate.example.com"}, 403),
        ({"Origin": "https://gate.example.com"}, 200),
        ({"Origin": "http://gate.example.com"}, 403),
    ],
)
async def test_hosts_and_origins(start_console: Any, headers: dict[str, str], status: int) -> None:
    console = await start_console({"console": {"public_url": "https://gate.example.com", "allowed_hosts": ["console.internal"]}})
    answer = await console.client.post(KEYS, json={"name": "a"}, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["error"]["message"]


async def test_our_own_page_may_speak(console: Any) -> None:
    own = {"Origin": console.url, "Sec-Fetch-Site": "same-origin"}
    assert (await console.client.post(KEYS, json={"name": "a"}, headers=own)).status_code == 200


@pytest.mark.parametrize("host", ["", "a/b", "a b", "a,b", "[::1", "user@host"])
def test_garbage_hosts_are_not_ours(host: str) -> None:
    assert not HostRules.of(settings({}), "127.0.0.1").host_ok(host)


async def test_user_and_password_replace_the_link(start_console: Any) -> None:
    console = await start_console(PASSWORD)
    async with console.stranger() as browser:
        assert (await browser.get("/", params={"token": TOKEN})).status_code == 401
        assert (await browser.get("/api/session/is-auth-enabled")).json()["auth_type"] == "password"
        basic = base64.b64encode(b"ann:pass:word").decode()
        assert (await browser.get(KEYS, headers={"Authorization": f"Basic {basic}"})).status_code == 200
        assert (await browser.get(KEYS)).headers["www-authenticate"].startswith("Basic ")
        page = await browser.get(KEYS, headers={"Sec-Fetch-Site": "same-origin"})
        assert (page.status_code, "www-authenticate" in page.headers) == (401, False)
        login = "/api/session/login"
        assert (await browser.post(login, json={"username": "ann", "password": "no"})).status_code == 401
        assert (await browser.post(login, json={"username": "ann"})).status_code == 400
        assert (await browser.post(login, json={"token": TOKEN})).status_code == 400
        assert (await browser.post(login, json={"username": "ann", "password": "pass:word"})).status_code == 200
        assert (await browser.get(KEYS)).status_code == 200
    assert (await console.client.get(KEYS)).status_code == 200, "the token in the app directory still serves the command line"
    assert "pass:word" not in (await console.client.get("/api/config")).text


async def test_guessing_is_slowed_down(start_console: Any) -> None:
    console = await start_console(PASSWORD)
    async with console.stranger() as guesser:
        answers = [
            (await guesser.post("/api/session/login", json={"username": "ann", "password": f"guess {n}"})).status_code
            for n in range(7)
        ]
        assert answers == [401] * 5 + [429] * 2
        right = {"username": "ann", "password": "pass:word"}
        blocked = await guesser.post("/api/session/login", json=right)
        assert blocked.status_code == 429 and int(blocked.headers["retry-after"]) >= 1
        console.clock.ahead_seconds += 2
        assert (await guesser.post("/api/session/login", json=right)).status_code == 200
        assert (await guesser.post("/api/session/login", json={"username": "ann", "password": "x"})).status_code == 401
    assert (await console.client.get(KEYS)).status_code == 200, "the admin token is not kept out by others' guesses"


async def test_an_open_console_only_on_loopback(start_console: Any) -> None:
    document = {"auth_config": {"is_enabled": False}}
    console = await start_console(document)
    async with console.stranger() as anybody:
        assert (await anybody.post(KEYS, json={"name": "a"})).status_code == 200
        assert (await anybody.post(KEYS, json={"name": "b"}, headers={"Origin": "https://evil.example"})).status_code == 403
        assert (await anybody.post("/api/session/login", json={})).status_code == 403
    with pytest.raises(SettingsError, match="auth_config.is_enabled: is false, but the console listens on 0.0.0.0"):
        await start_console(document, host="0.0.0.0")


async def test_every_answer_carries_the_security_headers(console: Any) -> None:
    async with console.stranger() as anybody:
        for path in ("/", "/static/app.js", "/static/none.js", "/nothing", "/api/config", "/health", "/static/..%2f..%2fapp.py"):
            answer = await anybody.get(path)
            assert "default-src 'self'" in answer.headers["content-security-policy"], path
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "Tornado" not in answer.headers["server"]


async def test_errors_are_json_everywhere(console: Any) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("POST", "/api/nothing", 404),
        ("PATCH", KEYS, 405),
        ("DELETE", "/health", 405),
        ("GET", "/api/governance/virtual-keys/a/b/c", 404),
    ):
        answer = await console.client.request(method, path)
        assert answer.status_code == status, (method, path)
        assert answer.json()["status_code"] == status and answer.json()["error"]["message"]


async def test_a_fault_of_ours_shows_no_traceback(console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("addons.console.api.virtual_keys.read_keys", broken)
    answer = await console.client.get(KEYS)
    assert answer.status_code == 500 and "secret detail" not in answer.text and "Traceback" not in answer.text


async def test_the_page_has_no_inline_script_or_style(console: Any) -> None:
    async with console.stranger() as anybody:
        page = await anybody.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|<style", page.text)
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            assert (await anybody.get(asset)).status_code == 200, asset
        modules = ["app.js"]
        seen: set[str] = set()
        while modules:
            name = modules.pop()
            script = await anybody.get(f"/static/{name}")
            assert script.status_code == 200 and "javascript" in script.headers["content-type"]
            assert "innerHTML" not in script.text
            seen.add(name)
            modules += [m for m in re.findall(r'from "\./([^"]+)"', script.text) if m not in seen]
        assert {"app.js", "api.js", "budgets.js", "calls.js", "dom.js", "format.js"} == seen


async def test_large_bodies_are_refused(console: Any) -> None:
    try:
        answer = await console.client.post(KEYS, content=b" " * (3 * 1024 * 1024))
        assert answer.status_code in (400, 413)
    except Exception as error:  # the server may close before the client has sent all
        assert type(error).__module__.startswith("httpx")
    assert (await console.client.get(KEYS)).status_code == 200
