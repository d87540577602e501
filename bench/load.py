"""A closed-loop load generator: N keep-alive connections, each sends the next request when its answer is complete. Prints JSON."""

import argparse
import asyncio
import json
import time
from urllib.parse import urlsplit


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request in flight, as bare as possible: the generator must not be the bottleneck."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.transport: asyncio.Transport | None = None
        self.buffer = bytearray()
        self.began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.next()

    def next(self) -> None:
        if self.load.over():
            self.transport.close()
            return
        self.began = time.perf_counter()
        self.transport.write(self.load.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            if not rest.endswith(b"0\r\n\r\n"):
                return
        else:
            length = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(rest) < length:
                return
        self.buffer.clear()
        self.load.finished(int(head[9:12]), time.perf_counter() - self.began)
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.left(exc)


class Load:
    """The shared state of all connections."""

    def __init__(self, request: bytes, seconds: float, connections: int) -> None:
        self.request = request
        self.connections = connections
        self.until = time.perf_counter() + seconds
        self.latencies: list[float] = []
        self.statuses: dict[int, int] = {}
        self.open = connections
        self.done = asyncio.Event()

    def over(self) -> bool:
        return time.perf_counter() >= self.until

    def finished(self, status: int, seconds: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.latencies.append(seconds)

    def left(self, exc: Exception | None) -> None:
        if exc is not None:
            self.statuses[0] = self.statuses.get(0, 0) + 1
        self.open -= 1
        if self.open == 0:
            self.done.set()


def request_bytes(url: str, headers: list[str], body: bytes) -> bytes:
    """One HTTP/1.1 POST as it stands on the wire."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"host: {parts.netloc}", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {len(body)}", *headers, "", ""]).encode() + body


async def run(url: str, headers: list[str], body: bytes, connections: int, seconds: float) -> dict[str, object]:
    """Drive the load; figures in requests a second and milliseconds."""
    parts = urlsplit(url)
    load = Load(request_bytes(url, headers, body), seconds, connections)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), parts.hostname, parts.port)
    await load.done.wait()
    elapsed = time.perf_counter() - began
    latencies = sorted(load.latencies)

    def at(share: float) -> float:
        return round(latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000, 3) if latencies else 0.0

    return {
        "requests": len(latencies),
        "per_second": round(len(latencies) / elapsed, 1),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "statuses": load.statuses,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--body", required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(run(args.url, args.header, args.body.encode(), args.connections, args.seconds))))


if __name__ == "__main__":
    main()
