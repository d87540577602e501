"""Signing in and out leaves rows; failures are counted, so that a flood of guesses is a few rows; a session that ended stays so."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from addons.console.sign_ins import ADDRESSES_KEPT, SignIns
from store.errors import StoreUnavailable

KEYS = "/api/governance/virtual-keys"
TOKEN = "test-admin-token-0123456789abcdefghij"
PASSWORD = {"auth_config": {"admin_username": "ann", "admin_password": "pass:word", "is_enabled": True}}
RIGHT = {"username": "ann", "password": "pass:word"}


async def rows(console: Any, **conditions: str) -> list[dict[str, Any]]:
    found = (await console.client.get("/api/audit", params={"kind": "session", **conditions})).json()
    return list(found["entries"][::-1])


async def test_signing_in_and_out_leaves_a_row_each(start_console: Any) -> None:
    console = await start_console(PASSWORD)
    async with console.stranger() as browser:
        csrf = (await browser.post("/api/session/login", json=RIGHT)).json()["csrf_token"]
        headers = {"X-CSRF-Token": csrf}
        assert (await browser.post("/api/governance/teams", json={"name": "blue"}, headers=headers)).status_code == 200
        assert (await browser.post("/api/session/logout")).status_code == 200
        assert (await browser.post("/api/session/logout")).status_code == 200, "there is nothing left to end"
    found = await rows(console)
    assert [(row["action"], row["actor"], row["method"], row["address"]) for row in found] == [
        ("sign in", "ann", "password", "127.0.0.1"),
        ("sign out", "ann", "session", "127.0.0.1"),
    ]
    (team,) = (await console.client.get("/api/audit", params={"kind": "team"})).json()["entries"]
    assert (team["actor"], team["method"]) == ("ann", "session")
    await console.client.post("/api/governance/teams", json={"name": "red"})
    (newest, _) = (await console.client.get("/api/audit", params={"kind": "team"})).json()["entries"]
    assert (newest["actor"], newest["method"]) == ("admin token", "bearer"), "the token is not the user"


async def test_the_link_leaves_a_row_and_a_wrong_one_too(console: Any) -> None:
    async with console.stranger() as browser:
        await browser.get("/", params={"token": TOKEN})
        await browser.get("/", params={"token": "wrong"})
    await _written(console, 2)
    signed, failed = await rows(console)
    assert (signed["action"], signed["actor"], signed["method"]) == ("sign in", "admin token", "link")
    assert (failed["action"], failed["actor"], failed["address"]) == ("sign in failed", "unknown", "127.0.0.1")
    assert failed["details"]["failures"] == 1 and failed["details"]["addresses"] == {"127.0.0.1": 1}


async def _written(console: Any, count: int) -> None:
    """Failures are written beside the request that made them, on the console's threads: wait for what is queued there."""
    executor = console.sign_ins._executor
    barrier = threading.Barrier(executor._max_workers + 1)
    for _ in range(executor._max_workers):
        executor.submit(barrier.wait, 10)
    await asyncio.to_thread(barrier.wait, 10)
    assert len(await rows(console)) == count


async def test_a_flood_of_guesses_is_two_rows_a_minute(start_console: Any) -> None:
    console = await start_console(PASSWORD)
    async with console.stranger(
        headers={"X-Forwarded-For": "6.6.6.6", "X-Real-Ip": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    ) as guesser:
        for number in range(40):
            answer = await guesser.post("/api/session/login", json={"username": "ann", "password": f"guess {number}"})
            assert answer.status_code in (401, 429)
        for header in ("Bearer nonsense", "Basic bm9ib2R5Om5vdGhpbmc="):
            await guesser.get(KEYS, headers={"Authorization": header})
    await _written(console, 1)
    (first,) = await rows(console)
    assert first["details"]["failures"] == 1
    console.sign_ins.flush()
    await _written(console, 2)
    _, second = await rows(console)
    assert (second["details"]["failures"], second["address"]) == (41, "127.0.0.1"), "no header says where a client is"
    text = str(await rows(console))
    assert "guess" not in text and "ann" not in text and "nonsense" not in text and "6.6.6.6" not in text
    console.sign_ins.flush()
    assert len(await rows(console)) == 2, "a quiet minute leaves nothing"


async def test_many_addresses_are_counted_in_bounded_memory(console: Any) -> None:
    sign_ins = SignIns(console.store, ThreadPoolExecutor(1), window_seconds=1000.0)
    for number in range(5000):
        sign_ins.failed(f"10.0.{number // 250}.{number % 250}")
    assert len(sign_ins._failures) <= ADDRESSES_KEPT * 10 + 1
    sign_ins.failed("10.0.0.1")
    sign_ins.close()
    sign_ins._executor.shutdown()
    found = await rows(console)
    totals = sorted(row["details"]["failures"] for row in found)
    assert totals == [1, 5000]
    large = next(row for row in found if row["details"]["failures"] == 5000)
    assert len(large["details"]["addresses"]) == ADDRESSES_KEPT and large["address"] == ""
    assert sum(large["details"]["addresses"].values()) + large["details"]["from_other_addresses"] == 5000


async def test_who_cannot_be_written_down_does_not_come_in(start_console: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    console = await start_console(PASSWORD)

    def broken(*_: Any) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(SignIns, "_write", broken)
    async with console.stranger() as browser:
        answer = await browser.post("/api/session/login", json=RIGHT)
        assert answer.status_code == 503 and "set-cookie" not in answer.headers


async def test_signing_out_ends_copies_of_the_cookie(start_console: Any) -> None:
    console = await start_console()
    async with console.stranger() as browser:
        await browser.get("/", params={"token": TOKEN})
        cookies = {cookie.name: cookie.value or "" for cookie in browser.cookies.jar}
        (session,) = cookies.values()
        async with console.stranger(cookies=cookies) as thief:
            bearer = {"Authorization": f"Bearer {session}"}
            assert (await thief.get(KEYS)).status_code == 200
            assert (await console.stranger().get(KEYS, headers=bearer)).status_code == 200
            await browser.post("/api/session/logout")
            assert (await thief.get(KEYS)).status_code == 401
            assert (await console.stranger().get(KEYS, headers=bearer)).status_code == 401
            state = (await thief.get("/api/session/is-auth-enabled")).json()
            assert state["has_valid_token"] is False and "csrf_token" not in state
        again = await start_console()
        async with again.stranger(cookies=cookies) as thief:
            assert (await thief.get(KEYS)).status_code == 401, "also after a restart"
    async with console.stranger() as other:
        await other.get("/", params={"token": TOKEN})
        assert (await other.get(KEYS)).status_code == 200, "other sessions go on"
    with console.store.ledger.read() as connection:
        kept = str(connection.execute("SELECT * FROM ended_sessions"))
    assert session not in kept, "the table does not give sessions away"


async def test_notes_of_ended_sessions_go_when_the_sessions_would_have(console: Any) -> None:
    for _ in range(3):
        async with console.stranger() as browser:
            await browser.get("/", params={"token": TOKEN})
            await browser.post("/api/session/logout")
    console.clock.ahead_seconds = 31 * 86_400
    async with console.stranger() as browser:
        await browser.get("/", params={"token": TOKEN})
        await browser.post("/api/session/logout")
    with console.store.ledger.read() as connection:
        assert connection.execute("SELECT count(*) FROM ended_sessions")[0][0] == 1


async def test_forged_sessions_cannot_fill_the_table(console: Any) -> None:
    async with console.stranger() as forger:
        for value in ("9999999999.aa.bb", "x", "9999999999"):
            await forger.post("/api/session/logout", headers={"Authorization": f"Bearer {value}"})
    with console.store.ledger.read() as connection:
        assert connection.execute("SELECT count(*) FROM ended_sessions")[0][0] == 0
