"""The usage APIs of OpenAI and Anthropic in front of the pretend provider's bill, for programs that ask them."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support import exports
from tests.support.exports import DAY_SECONDS, Json

PAGE_SIZE = 1
ADMIN_KEY = "sk-admin-of-the-pretend-organization"


class UsageApi:
    """`with UsageApi(lambda: provider.bill()["lines"]) as api:`; `api.url` is where both providers' admin paths are answered."""

    def __init__(self, lines: Callable[[], list[Json]]) -> None:
        self.asked: list[str] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.asked.append(self.path)
                parts = urlsplit(self.path)
                given = (self.headers.get("authorization") or self.headers.get("x-api-key") or "").removeprefix("Bearer ")
                status, body = (
                    (200, _answer(parts.path, parse_qs(parts.query), lines())) if given == ADMIN_KEY else (401, {"error": {}})
                )
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()


def _answer(path: str, query: dict[str, list[str]], lines: list[Json]) -> Json:
    """One page, as the provider whose path it is would answer: of the whole days asked about, cut to the asked time."""
    if path == "/v1/organization/usage/completions":
        start, end = int(query["start_time"][0]), int(query["end_time"][0])
        calls = exports.billed_of(lines, "openai")
        buckets = exports.openai_usage(calls, _days(start, end), width=60, page_size=100_000)[0]["data"]
        wanted = [bucket for bucket in buckets if start <= bucket["start_time"] and bucket["end_time"] <= end]
        grouped = query.get("group_by") == ["model"]
        head: Json = {"object": "page"}
    elif path == "/v1/organizations/usage_report/messages":
        start, end = exports.second_of(query["starting_at"][0]), exports.second_of(query["ending_at"][0])
        calls = exports.billed_of(lines, "anthropic")
        buckets = exports.anthropic_usage(calls, _days(start, end), width=60, page_size=100_000)[0]["data"]
        wanted = [
            bucket
            for bucket in buckets
            if start <= exports.second_of(bucket["starting_at"]) and exports.second_of(bucket["ending_at"]) <= end
        ]
        grouped, head = query.get("group_by[]") == ["model"], {}
    else:
        return {"error": {"type": "not_found"}}
    if not grouped or query.get("bucket_width") != ["1m"]:
        raise ValueError("asked in a way that this API was not made for")
    number = int(query.get("page", ["page_0"])[0].removeprefix("page_"))
    page = wanted[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
    more = (number + 1) * PAGE_SIZE < len(wanted)
    return {**head, "data": page, "has_more": more, "next_page": f"page_{number + 1}" if more else None}


def _days(start: int, end: int) -> list[str]:
    return [exports.day_text(second) for second in range(start // DAY_SECONDS * DAY_SECONDS, end, DAY_SECONDS)]
