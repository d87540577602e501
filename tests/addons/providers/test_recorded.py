"""Every recorded answer gives the same reading and the same bytes, however the network cuts it."""

import json
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from addons.providers.dialect import Reader, RequestFacts
from addons.providers.registry import DIALECTS
from store.usage import Reading, Usage

WIRE = Path(__file__).resolve().parents[2] / "wire"
CASES = sorted(WIRE.glob("*/*.json"))
SEEDS = range(20)


class Case:
    def __init__(self, path: Path) -> None:
        self.meta: dict[str, Any] = json.loads(path.read_text("utf-8"))
        self.dialect = DIALECTS[path.parent.name]
        self.sent = path.with_suffix(".response.bin").read_bytes()
        other = path.with_suffix(".client.bin")
        self.received = other.read_bytes() if other.exists() else self.sent

    def reader(self) -> Reader:
        facts = RequestFacts(
            operation=self.meta.get("operation", "chat_completion"),
            model=self.meta.get("model"),
            stream=self.meta["stream"],
        )
        return self.dialect.reader(facts, self.meta["content_type"], hide_usage=self.meta["hide_usage"])

    def expected(self) -> Reading:
        fields = dict(self.meta["reading"])
        if fields.get("usage") is not None:
            fields["usage"] = Usage(**fields["usage"])
        fields["further"] = tuple((model, Usage(**usage)) for model, usage in fields.get("further", []))
        return Reading(**fields)


def pieces(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 12)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def run(case: Case, chunks: list[bytes]) -> tuple[bytes, Reading, str]:
    reader = case.reader()
    out = b"".join(reader.feed(chunk) for chunk in chunks) + reader.finish()
    return out, reader.reading(), reader.transcript(1000)


@pytest.fixture(params=CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_there_are_cases_for_every_dialect() -> None:
    assert {path.parent.name for path in CASES} == set(DIALECTS)


def test_whole(case: Case) -> None:
    out, reading, transcript = run(case, [case.sent])

    assert asdict(reading) == asdict(case.expected())
    assert out == case.received
    if "transcript" in case.meta:
        assert transcript == case.meta["transcript"]


def test_byte_by_byte(case: Case) -> None:
    out, reading, transcript = run(case, [case.sent[i : i + 1] for i in range(len(case.sent))])

    assert asdict(reading) == asdict(case.expected())
    assert out == case.received
    if "transcript" in case.meta:
        assert transcript == case.meta["transcript"]


def test_cut_anywhere(case: Case) -> None:
    for seed in SEEDS:
        out, reading, _ = run(case, pieces(case.sent, seed))

        assert asdict(reading) == asdict(case.expected()), f"seed {seed}"
        assert out == case.received, f"seed {seed}"


def test_broken_off_anywhere_never_claims_more_than_the_whole(case: Case) -> None:
    """A stream that breaks can be asked for its reading; what it says grows towards the whole, and nothing raises."""
    for end in range(0, len(case.sent), max(1, len(case.sent) // 40)):
        reader = case.reader()
        out = reader.feed(case.sent[:end])
        reading = reader.reading()

        assert case.received.startswith(out) or case.meta["hide_usage"]
        whole = case.expected()
        if reading.usage is not None and whole.usage is not None and not whole.further:
            assert reading.usage.input_tokens <= whole.usage.input_tokens
        if case.meta["stream"]:
            assert reading.output_bytes <= whole.output_bytes


def test_hostile_bytes_change_nothing_for_the_client(case: Case) -> None:
    """Bytes overwritten at random pass through as they are; readers neither raise nor lose any."""
    if case.meta["hide_usage"]:
        pytest.skip("what is taken out depends on what can be read")
    for seed in SEEDS:
        chance = random.Random(seed)
        damaged = bytearray(case.sent)
        for _ in range(10):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)

        out, reading, _ = run(case, pieces(bytes(damaged), seed))

        assert out == bytes(damaged), f"seed {seed}"
        assert reading.output_bytes >= 0
