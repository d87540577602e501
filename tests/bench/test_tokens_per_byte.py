"""The arithmetic of bench/tokens_per_byte.py, with an encoding simple enough to count by hand."""

import importlib.util
import json
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    path = Path(__file__).parents[2] / "bench" / "tokens_per_byte.py"
    spec = importlib.util.spec_from_file_location("tokens_per_byte", path)
    if spec is None or spec.loader is None:
        raise RuntimeError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules["tokens_per_byte"] = module
    spec.loader.exec_module(module)
    return module


bench = load()


class OneTokenAWord:
    """Words are tokens."""

    def encode_ordinary(self, text: str) -> list[int]:
        return [0] * len(text.split())


def body_file(folder: Path, name: str, body: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(body))
    return path


@pytest.mark.parametrize(
    ("name", "body", "text_bytes", "tokens"),
    [
        # "user" 4 + "one two" 7
        ("openai_chat-x-1.json", {"model": "m", "messages": [{"role": "user", "content": "one two"}]}, 11, 3),
        # "één" is 5 bytes
        ("openai_responses-x-1.json", {"model": "m", "input": "één", "instructions": "be brief"}, 13, 3),
        ("gemini-x-1.json", {"contents": [{"parts": [{"text": "a b c"}, {"inlineData": {"data": "AAAA"}}]}]}, 5, 3),
    ],
)
def test_text_is_counted_and_media_is_not(tmp_path: Path, name: str, body: Any, text_bytes: int, tokens: int) -> None:
    sample = bench.measure(body_file(tmp_path, name, body), OneTokenAWord(), Fraction("1.3"))
    assert (sample.text_bytes, sample.tokens, sample.kind) == (text_bytes, tokens, "x")


def test_anthropic_counts_are_scaled_and_tools_count_as_compact_json(tmp_path: Path) -> None:
    body = {"system": "be brief", "messages": [], "tools": [{"name": "look"}]}
    sample = bench.measure(body_file(tmp_path, "anthropic-1.json", body), OneTokenAWord(), Fraction("1.3"))
    assert sample.text_bytes == 8 + len('[{"name":"look"}]')
    assert sample.tokens == 3 * Fraction("1.3")
    assert sample.ratio == Fraction("3.9") / 25


def test_percentiles_are_of_nearest_rank() -> None:
    ratios = [Fraction(number, 100) for number in range(100, 0, -1)]
    assert bench.percentile(ratios, 0.99) == Fraction(99, 100)
    assert bench.percentile(ratios, 0.5) == Fraction(1, 2)
    assert bench.percentile([Fraction(1, 3)], 0.99) == Fraction(1, 3)


def test_a_body_without_text_is_no_sample(tmp_path: Path) -> None:
    assert bench.measure(body_file(tmp_path, "gemini-1.json", {"contents": []}), OneTokenAWord(), Fraction(1)) is None


@pytest.mark.parametrize(("name", "body"), [("other-1.json", {}), ("gemini-1.json", [])])
def test_what_cannot_be_measured_is_said(tmp_path: Path, name: str, body: Any) -> None:
    with pytest.raises(ValueError, match=name):
        bench.measure(body_file(tmp_path, name, body), OneTokenAWord(), Fraction(1))
