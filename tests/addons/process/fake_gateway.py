"""A gateway of the tests' own: just enough of `serve` and its console for the commands, in one small process.

    python fake_gateway.py serve --app-dir DIR ...

It writes run.json and prints the ready line as the contract says. A proxied request (absolute form or CONNECT) counts as a call of
the run whose credential it carries. `FAKE_REFUSE_START` in the environment makes it fail like a gateway that cannot start.
"""

import base64
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "the-admin-token"
COST_PER_CALL = 3_075_000
runs: dict[str, dict[str, Any]] = {}
made_at: dict[str, float] = {}
journal: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    """The console and the proxy on one port."""

    def log_message(self, *args: Any) -> None:
        return

    def answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, status: int, message: str) -> None:
        self.answer(status, {"is_bifrost_error": False, "status_code": status, "error": {"message": message}, "extra_fields": {}})

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        if self.path.startswith("http://"):
            return self.proxied()
        journal.append({"method": self.command, "path": self.path, "body": body})
        if self.path == "/health":
            return self.answer(200, {"status": "ok"})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        if self.path == "/journal":
            return self.answer(200, {"journal": journal})
        if self.path == "/api/governance/runs" and self.command == "POST":
            return self.open_run(body)
        run = runs.get(self.path.removeprefix("/api/governance/runs/"))
        if run is None:
            return self.refuse(404, f"there is nothing at {self.path}")
        if self.command == "DELETE":
            run["closed"] = True
            return self.answer(200, {"message": "Run ended successfully"})
        self.answer(200, {"run": {**run, "cost_usd": f"{run['calls'] * COST_PER_CALL / 1e9:.9f}"}})

    do_GET = do_POST = do_DELETE = handle_any

    def do_CONNECT(self) -> None:
        """As a worker that has read the governance again only a while after a run was made."""
        run = self.run_of_credential()
        known = run is not None and time.monotonic() - made_at[run["id"]] > 0.3
        self.refuse(200 if known else 407, "")

    def open_run(self, body: dict[str, Any]) -> None:
        if body["virtual_key"] == "nobody":
            return self.refuse(404, "there is no virtual key 'nobody'")
        number = str(len(runs) + 1)
        made_at[number] = time.monotonic()
        runs[number] = {"id": number, "value": f"sk-bf-run-{number}", "virtual_key_name": "default", "calls": 0, "refused": 0}
        self.answer(200, {"run": runs[number]})

    def run_of_credential(self) -> dict[str, Any] | None:
        scheme, _, credential = (self.headers.get("Proxy-Authorization") or "").partition(" ")
        value = base64.b64decode(credential).decode().partition(":")[2] if scheme == "Basic" else ""
        return next((run for run in runs.values() if run["value"] == value), None)

    def proxied(self) -> None:
        run = self.run_of_credential()
        if run is None or time.monotonic() - made_at[run["id"]] < 0.3:
            return self.refuse(407, "unknown credential")
        run["calls"] += 1
        run["refused"] += self.path.endswith("/refused")
        self.answer(402 if self.path.endswith("/refused") else 200, {"seen": run["value"]})


def main() -> None:
    """Run until SIGTERM, then take a moment, as a gateway that drains does."""
    if reason := os.environ.get("FAKE_REFUSE_START"):
        print(f"tollgate: {reason}", file=sys.stderr)
        sys.exit(2)
    app_dir = Path(sys.argv[sys.argv.index("--app-dir") + 1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    (app_dir / "admin.token").write_text(TOKEN + "\n")
    record = {"pid": os.getpid(), "gateway": address, "console": address, "inspector": None, "version": "0", "started_at": ""}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    (app_dir / "run.json").write_text(json.dumps(record))
    with (app_dir / "starts.log").open("a") as log:
        log.write(f"started {os.getpid()}\n")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, lambda *_: os._exit(99))  # a Ctrl-C must never reach the gateway that exec started
    print(f"ready gateway={address} console={address} inspector=None", flush=True)
    ended.wait()
    time.sleep(0.05)
    (app_dir / "run.json").unlink()
    with (app_dir / "starts.log").open("a") as log:
        log.write(f"drained {os.getpid()}\n")


if __name__ == "__main__":
    main()
