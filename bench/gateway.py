"""The gateway against stock `mitmdump -q` on the same upstream in the same run: requests a second, and latency at one in flight.

    uv run python bench/gateway.py [--rounds 5] [--seconds 4]

The upstream is the pretend provider in a process of its own; the load comes from a third process. Rounds alternate between the
proxies, because the machine's speed drifts; the figure that counts is the ratio of the medians. Everything of the gateway is on
(virtual key, price, three budgets, synced ledger, logs) but the inspector.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.config import VIRTUAL_KEY, budget, config_for, virtual_key  # noqa: E402
from tests.support.gateway import Gateway  # noqa: E402
from tests.support.provider import PretendProcess  # noqa: E402

BODY = json.dumps(
    {"model": "gpt-4o-mini", "max_tokens": 16, "messages": [{"role": "user", "content": "Say hello to the benchmark."}]}
)


def load(url: str, headers: list[str], connections: int, seconds: float) -> dict:
    """One measurement by the load process."""
    command = [sys.executable, str(ROOT / "bench" / "load.py"), url, "--body", BODY]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    for header in headers:
        command += ["--header", header]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of these processes so far (Linux; 0 elsewhere)."""
    total = 0.0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def children_of(pid: int) -> list[int]:
    """The process and its direct children (Linux)."""
    found = [pid]
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry.parent.name))
    return found


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start_mitmdump(upstream: str, confdir: str) -> tuple[subprocess.Popen, int]:
    """Stock mitmdump, quiet, reverse to the upstream, on a free port."""
    port = free_port()
    program = Path(sys.executable).with_name("mitmdump")
    command = [str(program), "-q", "--mode", f"reverse:{upstream}", "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    process = subprocess.Popen([*command, "--set", f"confdir={confdir}"])
    for _ in range(200):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return process, port
        time.sleep(0.05)
    raise RuntimeError("mitmdump did not start")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=32)
    args = parser.parse_args()
    budgets = [budget(1_000_000, name=f"bench {reset}", reset=reset) for reset in ("1h", "1d", "30d")]
    with tempfile.TemporaryDirectory() as folder, PretendProcess(keep=0) as provider:
        config = config_for(provider.url, virtual_keys=[virtual_key(budgets=budgets)])
        with Gateway(Path(folder) / "app", config) as gateway:
            dump, port = start_mitmdump(provider.url, f"{folder}/mitm")
            try:
                places = {
                    "direct": (f"{provider.url}/v1/chat/completions", ["authorization: Bearer sk-x"]),
                    "mitmdump": (f"http://127.0.0.1:{port}/v1/chat/completions", ["authorization: Bearer sk-x"]),
                    "tollgate": (f"{gateway.url}/openai/v1/chat/completions", [f"authorization: Bearer {VIRTUAL_KEY}"]),
                }
                processes = {"direct": [], "mitmdump": [dump.pid], "tollgate": children_of(gateway.pid)}
                measure(places, processes, args)
            finally:
                dump.terminate()
                dump.wait(10)


def measure(places: dict[str, tuple[str, list[str]]], processes: dict[str, list[int]], args: argparse.Namespace) -> None:
    """Alternate between the places; print medians and ratios."""
    costs: dict[str, list[float]] = {name: [] for name in places}
    rates: dict[str, list[float]] = {name: [] for name in places}
    alone: dict[str, list[float]] = {name: [] for name in places}
    for url, headers in places.values():
        load(url, headers, args.connections, 1.0)
    for number in range(args.rounds):
        for name, (url, headers) in places.items():
            if name == "direct" and number:
                continue
            before = cpu_seconds(processes[name])
            result = load(url, headers, args.connections, args.seconds)
            costs[name].append((cpu_seconds(processes[name]) - before) / max(1, result["requests"]) * 1e6)
            if set(result["statuses"]) != {"200"}:
                raise RuntimeError(f"{name} answered {result['statuses']}")
            rates[name].append(result["per_second"])
            single = load(url, headers, 1, 1.5)
            alone[name].append(single["p50_ms"])
            print(
                f"round {number + 1} {name:9} {result['per_second']:8.1f} req/s  p99 {result['p99_ms']:7.2f} ms"
                f"  cpu {costs[name][-1]:5.0f} us/req  alone p50 {single['p50_ms']:.2f} ms",
                flush=True,
            )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    single = {name: statistics.median(values) for name, values in alone.items()}
    print(f"\nrequests/s, {args.connections} connections, medians: " + ", ".join(f"{n} {v:.0f}" for n, v in medians.items()))
    print(f"ratio tollgate / mitmdump: {medians['tollgate'] / medians['mitmdump']:.2f}")
    cpu = {name: statistics.median(values) for name, values in costs.items() if processes[name]}
    print("cpu time a request, all processes, us: " + ", ".join(f"{n} {v:.0f}" for n, v in cpu.items()))
    print("latency at one in flight, p50 ms: " + ", ".join(f"{n} {v:.2f}" for n, v in single.items()))
    print(f"added latency at one in flight: {single['tollgate'] - single['direct']:.2f} ms (cpus: {os.cpu_count()})")


if __name__ == "__main__":
    main()
