"""Secrets from outside: files that are replaced under a running gateway, rotation with an overlap, and nothing shown anywhere."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.config import VIRTUAL_KEY, Config, budget, config_for, virtual_key
from tests.support.dialects import CHAT
from tests.support.gateway import Gateway
from tests.support.processes import ROOT
from tests.support.provider import PretendProcess
from tests.support.waiting import eventually
from tests.support.wire import Answer, Wire, post_json

ENCRYPTION_KEY = "canary-encryption-key-0001"
PROVIDER_KEY = "sk-canary-provider-key-0002"
PASSWORD = "canary-admin-password-0003"
HEADER = "canary-header-value-0004"
MADE_VALUE = "sk-bf-canary-virtual-key-0005"
UNKNOWN_VALUE = "sk-bf-canary-unknown-key-0006"


def call(gateway: Gateway, key: str = VIRTUAL_KEY) -> Answer:
    with Wire.to("127.0.0.1", gateway.port) as wire:
        return wire.ask(post_json(CHAT.target, CHAT.body(), {"x-bf-vk": key}))


def sent(provider: PretendProcess, name: str) -> str:
    """A header of the last request that reached the provider."""
    return str({header.lower(): value for header, value in provider.last(1)[0]["headers"]}[name])


def tollgate(gateway: Gateway, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    environ = gateway.env() | {"TOLLGATE_APP_DIR": str(gateway.app_dir)}
    command = [sys.executable, str(ROOT / "run_gateway.py"), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False, input=typed)


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr.strip()


@pytest.fixture(scope="module")
def provider() -> Iterator[PretendProcess]:
    with PretendProcess() as running:
        yield running


def with_key(provider_url: str, value: str, **more: Any) -> Config:
    made = config_for(provider_url, keys={"openai": value}, virtual_keys=[virtual_key(budgets=[budget(5)])])
    return made | more


def test_a_replaced_file_is_followed_and_a_missing_one_takes_the_key_away(provider: PretendProcess, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "openai").write_text("sk-first-from-a-file\n")
    with Gateway(tmp_path, with_key(provider.url, "file:secrets/openai")) as gateway:
        assert call(gateway).status == 200
        assert sent(provider, "authorization") == "Bearer sk-first-from-a-file"
        (secrets / "new").write_text("sk-second-from-a-file\n")
        (secrets / "new").rename(secrets / "openai")

        def sent_now() -> str:
            assert call(gateway).status == 200
            return sent(provider, "authorization")

        eventually(sent_now, lambda header: header == "Bearer sk-second-from-a-file")
        (secrets / "openai").unlink()
        answer = eventually(lambda: call(gateway), lambda answer: answer.status != 200)
        assert answer.status == 400 and answer.json()["type"] == "no_provider_key"
        with gateway.console() as console:
            (key,) = console.get("/api/providers/openai/keys").json()["keys"]
        assert key["value"] == "file:secrets/openai"
        assert (key["status"], key["status_reason"]) == (
            "unusable", f"the file {secrets}/openai cannot be read (No such file or directory)",
        )  # fmt: skip
        (secrets / "openai").write_text("sk-third-from-a-file\n")
        eventually(lambda: call(gateway).status, lambda status: status == 200)
        raw = (tmp_path / "config.db").read_bytes() + (tmp_path / "config.db-wal").read_bytes()
        assert b"from-a-file" not in raw and b"file:secrets/openai" in raw
        assert "from-a-file" not in gateway.log()
        assert f"provider key 'openai-main' of openai: the file {secrets}/openai cannot be read" in gateway.log()


def test_both_values_answer_then_the_old_one_is_unknown(provider: PretendProcess, tmp_path: Path) -> None:
    with Gateway(tmp_path, with_key(provider.url, "sk-x")) as gateway, gateway.console() as console:
        answer = console.post("/api/governance/virtual-keys/workshop-vk-1/rotate", json={"overlap": "4s"})
        assert answer.status_code == 200, answer.text
        made = answer.json()["virtual_key"]
        new = made["value"]
        assert made["previous_value_until"] is not None and new != VIRTUAL_KEY
        assert eventually(lambda: call(gateway, new).status, lambda status: status == 200) == 200
        assert call(gateway, VIRTUAL_KEY).status == 200
        names = [gateway.quota(key)["virtual_key_name"] for key in (new, VIRTUAL_KEY)]
        assert names == ["workshop-vk-1", "workshop-vk-1"]
        eventually(lambda: call(gateway, VIRTUAL_KEY).status, lambda status: status == 401, 20)
        assert call(gateway, new).status == 200
        with gateway.client(VIRTUAL_KEY) as client:
            assert client.get("/api/governance/virtual-keys/quota").status_code == 401
        shown = console.get("/api/governance/virtual-keys/workshop-vk-1").json()["virtual_key"]
        assert shown["previous_value_until"] is None
        rotated = tollgate(gateway, "keys", "rotate", "workshop-vk-1", "--overlap", "1h")
        assert rotated.returncode == 0 and "the old one works until" in rotated.stderr, rotated.stderr
        assert eventually(lambda: call(gateway, rotated.stdout.strip()).status, lambda status: status == 200)
        assert call(gateway, new).status == 200
        ended = tollgate(gateway, "keys", "rotate", "workshop-vk-1", "--end-overlap")
        assert ended.returncode == 0, ended.stderr
        eventually(lambda: call(gateway, new).status, lambda status: status == 401)
        wrong = console.post("/api/governance/virtual-keys/workshop-vk-1/rotate", json={"overlap": "soon"})
        assert wrong.status_code == 400 and "overlap" in wrong.json()["error"]["message"]


def first_event(console: httpx.Client, path: str) -> str:
    """What a stream that never ends says first."""
    with console.stream("GET", path) as answer:
        lines = []
        for line in answer.iter_lines():
            lines.append(line)
            if line.startswith("data:"):
                break
    return "\n".join(lines)


def get_everything(gateway: Gateway) -> str:
    """Every answer that the API gives to a GET, those with a part in their address for each thing there is."""
    texts = []
    with gateway.console() as console:
        paths = list(console.get("/api/openapi.json").json()["paths"])
        paths += ["/api/providers", "/api/providers/openai/keys", "/api/keys", "/api/config", "/api/governance/virtual-keys",
                  "/api/governance/virtual-keys?from_memory=true", "/api/logs", "/metrics", "/health"]  # fmt: skip
        log_id = console.get("/api/logs").json()["logs"][0]["id"]
        for path in dict.fromkeys(paths):
            for part in ("openai", "workshop-vk-1", "made", log_id):
                plain = path
                while "{" in plain:
                    plain = plain[: plain.index("{")] + part + plain[plain.index("}") + 1 :]
                texts.append(first_event(console, plain) if plain == "/api/events" else console.get(plain).text)
                if plain == path:
                    break
    assert len(texts) > 20
    return "\n".join(texts)


def test_canaries_are_seen_nowhere(provider: PretendProcess, tmp_path: Path) -> None:
    made = with_key(provider.url, PROVIDER_KEY, encryption_key="env.KEY")
    made["auth_config"] = {"admin_username": "admin", "admin_password": "env.PASSWORD"}
    made["providers"]["openai"]["network_config"]["extra_headers"] = {"x-account": HEADER}
    gateway = Gateway(tmp_path, made, env={"KEY": ENCRYPTION_KEY, "PASSWORD": PASSWORD})
    with gateway, gateway.console() as console:
        assert call(gateway).status == 200
        assert call(gateway, UNKNOWN_VALUE).status == 401
        assert sent(provider, "x-account") == HEADER
        body = {"name": "made", "value": MADE_VALUE, "provider_configs": [{"provider": "*"}]}
        answer = console.post("/api/governance/virtual-keys", json=body)
        assert answer.json()["virtual_key"]["value"] == MADE_VALUE, "shown once"
        rotated = console.post("/api/governance/virtual-keys/made/rotate", json={"overlap": "1h"}).json()["virtual_key"]["value"]
        eventually(lambda: console.get("/api/logs").json()["pagination"]["total_count"], lambda rows: rows >= 1)
        canaries = [ENCRYPTION_KEY, PROVIDER_KEY, PASSWORD, HEADER, MADE_VALUE, VIRTUAL_KEY, rotated, UNKNOWN_VALUE]
        seen = get_everything(gateway)
        exported = tollgate(gateway, "export", "-") if "export" in tollgate(gateway, "--help").stdout else None
        seen += exported.stdout if exported else ""
        assert [canary for canary in canaries if canary in seen] == []
        doctor = tollgate(gateway, "doctor", "--json")
        status = tollgate(gateway, "encryption", "status")
        assert "readable    nothing" in status.stdout, status.stdout + status.stderr
        assert [canary for canary in canaries if canary in doctor.stdout + status.stdout + gateway.log()] == []
        gateway.terminate()
    (tmp_path / "config.json").unlink()
    files = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert "config.db" in {file.name for file in files}
    found = [(file.name, canary) for file, content in files.items() for canary in canaries if canary.encode() in content]
    assert found == []


def test_encrypting_and_rotating_from_the_command_line(provider: PretendProcess, tmp_path: Path) -> None:
    made = with_key(provider.url, PROVIDER_KEY)
    gateway = Gateway(tmp_path, made)
    with gateway:
        assert call(gateway).status == 200
        assert "no encryption_key is set" in gateway.log()
        status = json.loads(tollgate(gateway, "encryption", "status", "--json").stdout)
        assert (status["is_encrypted"], status["clear_provider_keys"], status["clear_virtual_keys"]) == (False, 1, 1)
        (tmp_path / "key-1").write_text("the first key of this store\n")
        busy = one_error(tollgate(gateway, "encryption", "rotate", "--to", "file:key-1"))
        assert f"is already served by process {gateway.pid}" in busy
        gateway.terminate()
        literal = one_error(tollgate(gateway, "encryption", "rotate", "--to", "on-the-command-line"))
        assert "can be seen by every user" in literal and "on-the-command-line" not in literal
        short = one_error(tollgate(gateway, "encryption", "rotate", "--to", "-", typed="short\n"))
        assert "must have 12 characters or more" in short
        done = tollgate(gateway, "encryption", "rotate", "--to", "file:key-1")
        assert done.returncode == 0, done.stderr
        assert "the values of 1 virtual key cannot be shown any more, and go on working" in done.stdout
        raw = (tmp_path / "config.db").read_bytes()
        assert PROVIDER_KEY.encode() not in raw and VIRTUAL_KEY.encode() not in raw
        without = one_error(tollgate(gateway, "serve", "--port", "0", "--console-port", "0", "--no-inspect"))
        assert "the store is encrypted; set encryption_key in config.json" in without
        gateway.write_config(made | {"encryption_key": "file:key-1"})
        gateway.restart()
        assert call(gateway).status == 200
        gateway.terminate()
        rotated = tollgate(gateway, "encryption", "rotate", "--to", "-", typed="the second key of this store\n")
        assert rotated.returncode == 0 and "with the new key; the old one opens nothing any more" in rotated.stdout, rotated.stderr
        wrong = one_error(tollgate(gateway, "serve", "--port", "0", "--console-port", "0", "--no-inspect"))
        assert "encryption_key is not the key that this store was encrypted with" in wrong
        assert "second" not in wrong and "first" not in wrong
        (tmp_path / "key-1").write_text("the second key of this store\n")
        gateway.restart()
        assert call(gateway).status == 200
