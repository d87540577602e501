"""Makes `limits.json` out of litellm's model map: `python make_limits.py litellm-VERSION-….whl`. Run by hand, never at run time."""

import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLE = "litellm/model_prices_and_context_window_backup.json"
MODES = ("chat", "responses", "completion", "embedding")
OUTPUT = Path(__file__).parent / "limits.json"
PROVIDERS: Mapping[str, str] = {
    "anthropic": "anthropic",
    "azure": "azure",
    "azure_ai": "azure",
    "azure_text": "azure",
    "bedrock": "bedrock",
    "bedrock_converse": "bedrock",
    "bedrock_mantle": "bedrock",
    "cerebras": "cerebras",
    "codestral": "mistral",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "gemini": "gemini",
    "groq": "groq",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshot",
    "nebius": "nebius",
    "ollama": "ollama",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "sambanova": "sambanova",
    "text-completion-codestral": "mistral",
    "text-completion-openai": "openai",
    "together_ai": "together",
    "voyage": "voyage",
    "xai": "xai",
    "zai": "zai",
}
"""litellm's provider → ours; `vertex_ai…` → vertex. Others are left out."""

Limits = list[int | None]


def our_provider(name: str) -> str | None:
    """Our name of a provider of the table, None for one that is left out."""
    return "vertex" if name.startswith("vertex_ai") else PROVIDERS.get(name)


def bare_id(key: str, provider: str) -> str:
    """The model id without litellm's routing prefix; kept whole where slashes belong to the provider's own ids."""
    prefix, slash, rest = key.partition("/")
    if not slash or our_provider(prefix) != provider:
        return key.lower()
    return rest.lower()


def is_regional_copy(model: str, provider: str) -> bool:
    """Whether the entry repeats another for one region (`bedrock/us-east-1/…`, `azure/eu/…`)."""
    return provider in ("azure", "bedrock") and "/" in model


def whole(value: object) -> int | None:
    """A positive whole number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value > 0 and value == int(value) else None


def trim(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Limits]]]:
    """provider → mode → id → [largest input, largest output]; where two entries share an id, the larger figures."""
    trimmed: dict[str, dict[str, dict[str, Limits]]] = {}
    for key, entry in table.items():
        provider = our_provider(str(entry.get("litellm_provider", "")))
        mode = entry.get("mode")
        limits = [whole(entry.get("max_input_tokens")), whole(entry.get("max_output_tokens"))]
        if provider is None or mode not in MODES or limits == [None, None]:
            continue
        model = bare_id(key, provider)
        if is_regional_copy(model, provider):
            continue
        by_id = trimmed.setdefault(provider, {}).setdefault(mode, {})
        before = by_id.get(model, [None, None])
        by_id[model] = [max((n for n in pair if n is not None), default=None) for pair in zip(before, limits, strict=True)]
    return trimmed


def main(wheel: str) -> None:
    """Write the derivative beside this script and say how large it is."""
    with zipfile.ZipFile(wheel) as archive:
        table = json.loads(archive.read(TABLE))
    version = Path(wheel).name.split("-")[1]
    lines = json.dumps(
        {"source": f"litellm {version}", "limits": trim(table)}, sort_keys=True, separators=(",", ":"), ensure_ascii=True
    )
    OUTPUT.write_text(lines.replace("},", "},\n") + "\n", encoding="utf-8")
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_limits.py WHEEL")
    main(sys.argv[1])
