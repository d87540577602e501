"""Measures how many tokens a byte of request text makes, per dialect, from recorded request bodies.

    uv run --with tiktoken bench/tokens_per_byte.py BODIES --tokenizer DIRECTORY

BODIES is a folder of JSON request bodies named `DIALECT-anything.json` (`openai_chat`, `openai_responses`, `anthropic`, `gemini`),
or `DIALECT-KIND-anything.json` to see kinds of text apart. DIRECTORY holds tiktoken vocabularies under tiktoken's own cache names,
so that nothing is downloaded. Text is counted as the estimator counts it: every decoded string the model may read, tool schemas as
compact JSON, media left out. Counts for `anthropic` are multiplied by --anthropic-factor, as its tokenizer is not public.
"""

import argparse
import importlib
import json
import math
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

TEXT_MEMBERS = {
    "openai_chat": ("messages",),
    "openai_responses": ("input", "instructions"),
    "anthropic": ("messages", "system"),
    "gemini": ("contents", "systemInstruction", "system_instruction"),
}
JSON_MEMBERS = {
    "openai_chat": ("tools", "functions", "response_format"),
    "openai_responses": ("tools", "text"),
    "anthropic": ("tools", "output_format"),
    "gemini": ("tools",),
}
FRAMING_KEYS = frozenset(("role", "content", "type", "text", "parts"))
"""Members that messages consist of: what they cost is counted per message, not as text."""
MEDIA_KEYS = frozenset(("inlineData", "inline_data", "source", "image_url", "input_audio", "file_data"))


class Encoding(Protocol):
    """The one method of a tiktoken encoding that is used here."""

    def encode_ordinary(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One body measured."""

    dialect: str
    kind: str
    name: str
    text_bytes: int
    tokens: Fraction

    @property
    def ratio(self) -> Fraction:
        """Tokens per byte of text."""
        return self.tokens / self.text_bytes


def texts_of(dialect: str, body: dict[str, Any]) -> list[str]:
    """Every piece of text in a body that a model would read."""
    found = [piece for name in TEXT_MEMBERS[dialect] for piece in _strings(body.get(name))]
    for name in JSON_MEMBERS[dialect]:
        if body.get(name):
            found.append(json.dumps(body[name], ensure_ascii=False, separators=(",", ":")))
    return found


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in MEDIA_KEYS and not isinstance(item, str):
                continue
            if key not in FRAMING_KEYS:
                yield key
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif value is not None:
        yield str(value)


def measure(path: Path, encoding: Encoding, anthropic_factor: Fraction) -> Sample | None:
    """The sample in one file; None when it holds no text. Raises ValueError for a name or a body that cannot be used."""
    dialect, _, rest = path.stem.partition("-")
    if dialect not in TEXT_MEMBERS:
        raise ValueError(f"{path.name}: the name begins with none of {', '.join(TEXT_MEMBERS)}")
    body = json.loads(path.read_bytes())
    if not isinstance(body, dict):
        raise ValueError(f"{path.name}: the body is not a JSON object")
    texts = texts_of(dialect, body)
    text_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if not text_bytes:
        return None
    tokens = sum(len(encoding.encode_ordinary(text)) for text in texts)
    factor = anthropic_factor if dialect == "anthropic" else Fraction(1)
    return Sample(dialect, rest.partition("-")[0], path.name, text_bytes, tokens * factor)


def percentile(ratios: list[Fraction], share: float) -> Fraction:
    """The smallest ratio that at least `share` of all do not exceed (nearest rank)."""
    ordered = sorted(ratios)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(groups: dict[str, list[Sample]], title: str) -> str:
    """Rows of count, bytes and percentiles, a line per group."""
    lines = [f"{title:<28}{'bodies':>8}{'bytes':>12}{'p50':>8}{'p90':>8}{'p99':>8}{'max':>8}"]
    for name in sorted(groups):
        ratios = [sample.ratio for sample in groups[name]]
        size = sum(sample.text_bytes for sample in groups[name])
        figures = "".join(f"{float(percentile(ratios, share)):>8.3f}" for share in (0.5, 0.9, 0.99, 1.0))
        lines.append(f"{name:<28}{len(ratios):>8}{size:>12}{figures}")
    return "\n".join(lines)


def load_encoding(directory: Path, name: str) -> Encoding:
    """A tiktoken encoding from a local directory. Raises SystemExit with what to do when it is not there."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(directory)
    try:
        tiktoken = importlib.import_module("tiktoken")
    except ImportError:
        sys.exit("tiktoken is not installed; run this with: uv run --with tiktoken bench/tokens_per_byte.py …")
    if not any(directory.iterdir()):
        sys.exit(f"{directory} holds no vocabularies; give the directory with tiktoken's cached files as --tokenizer")
    encoding: Encoding = tiktoken.get_encoding(name)
    return encoding


def main() -> None:
    """Read the bodies, print one table per dialect and one per dialect and kind."""
    parser = argparse.ArgumentParser(description="Tokens per byte of request text, per dialect.")
    parser.add_argument("bodies", type=Path, help="folder of DIALECT-….json files")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory with tiktoken's cached vocabularies")
    parser.add_argument("--encoding", default="o200k_base")
    parser.add_argument("--anthropic-factor", type=Fraction, default=Fraction("1.3"))
    parser.add_argument("--minimum-bytes", type=int, default=0, help="leave out bodies with less text")
    options = parser.parse_args()
    if not options.bodies.is_dir() or not options.tokenizer.is_dir():
        sys.exit("BODIES and --tokenizer must be directories")
    encoding = load_encoding(options.tokenizer, options.encoding)
    by_dialect: dict[str, list[Sample]] = defaultdict(list)
    by_kind: dict[str, list[Sample]] = defaultdict(list)
    for path in sorted(options.bodies.glob("*.json")):
        try:
            sample = measure(path, encoding, options.anthropic_factor)
        except ValueError as error:
            sys.exit(str(error))
        if sample is not None and sample.text_bytes >= options.minimum_bytes:
            by_dialect[sample.dialect].append(sample)
            by_kind[f"{sample.dialect} {sample.kind}"].append(sample)
    if not by_dialect:
        sys.exit(f"no bodies with text in {options.bodies}")
    print(table(by_dialect, "dialect"))
    print()
    print(table(by_kind, "dialect and kind"))


if __name__ == "__main__":
    main()
