"""One rule for names of models, in allow lists, block lists and caps alike: names, `*` patterns, and the spellings of one model.

A listed name covers itself and whatever else providers take for the same model: its dated snapshots, resource paths, vendor
prefixes, other cases. So nobody gets past a cap or a block by writing the snapshot's name. `docs/configuration.md` has the table.
"""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from store.config_store.snapshot import ANY, ModelCaps, ModelLimit
from store.ledger.types import Cap
from store.prices.names import LONGEST_MODEL_NAME

CACHED = 4096
"""Names and lists kept. Names come from callers, so the cache must be bounded; a miss costs some ten microseconds."""

FEW = 8
"""So many patterns are tried at every call; of more the answers are kept."""

_MONTH, _DAY = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_SNAPSHOT = re.compile(
    rf"""-(?:
        20\d\d-{_MONTH}-{_DAY}      # OpenAI, Qwen: gpt-4o-2024-08-06
      | 20\d\d{_MONTH}{_DAY}        # Anthropic: claude-sonnet-4-20250514
      | {_MONTH}-20\d\d             # Cohere, Gemini: command-r-08-2024
      | {_MONTH}-{_DAY}             # Gemini: gemini-2.5-pro-preview-05-06
      | {_MONTH}{_DAY}              # gpt-4-0613, grok-4-0709
      | 2\d{_MONTH}(?:{_DAY})?      # Mistral, Qwen: mistral-large-2411; 250615
      | 00\d                        # Gemini: gemini-2.0-flash-001
      | 0                           # Anthropic's alias of the first snapshot: claude-sonnet-4-0
      | latest
    )\Z""",
    re.VERBOSE,
)
_TRIAL = re.compile(rf"-(?:preview|exp)(?=-(?:{_MONTH}-(?:{_DAY}|20\d\d)|{_MONTH}{_DAY})\Z)")
"""Google's dated previews are snapshots too; `-preview` without such a date is a model of its own (`o1-preview`)."""
_BEDROCK_VERSION = re.compile(r"-v\d+(?::[0-9a-z]+)+\Z")
_BEDROCK_VENDOR = re.compile(r"(?:(?:us-gov|us|eu|apac|ap|au|jp|ca|sa|global)\.)?[a-z][a-z0-9]*\.(?=[a-z])")
_TAG = ":latest"


def matches_any(patterns: tuple[str, ...], name: str, provider: str = "") -> bool:
    """Whether a model (as asked for at `provider`) is listed, by its name, another spelling of it, or a `*` pattern."""
    if not patterns:
        return False
    if patterns == (ANY,):
        return True
    names, stars = _compiled(patterns)
    found = spellings(name, provider)
    return any(spelling in names for spelling in found) or any(_fits(star, found) for star in stars)


def caps_on(limits: ModelCaps, name: str, provider: str) -> tuple[Cap, ...]:
    """The caps of every config that binds a call to this model at this provider, the narrowest config first."""
    if not limits.by_name and not limits.patterns:
        return ()
    if len(limits.patterns) <= FEW or len(name) > LONGEST_MODEL_NAME:
        return _caps_on(limits, name, provider)
    known = limits.found.get((name, provider))
    if known is None:
        if len(limits.found) >= CACHED:
            limits.found.clear()
        known = limits.found[name, provider] = _caps_on(limits, name, provider)
    return known


def caps_on_any(limits: ModelCaps, models: tuple[str, ...], provider: str) -> tuple[Cap, ...]:
    """The caps that may bind a call to this provider of which nobody knows the model. `models`: those it has; empty: unknown."""
    if not limits.by_name and not limits.patterns:
        return ()
    found = _spellings_of_all(models, provider)
    return tuple(cap for limit in limits.limits if _may_bind(limit, found, provider) for cap in limit.caps)


def _may_bind(limit: ModelLimit, names: frozenset[str], provider: str) -> bool:
    if limit.provider is not None:
        return limit.provider == provider
    return not names or (_fits(limit.parts, names) if limit.parts else ModelLimit.normal(limit.model_name) in names)


@lru_cache(64)
def _spellings_of_all(models: tuple[str, ...], provider: str) -> frozenset[str]:
    return frozenset(spelling for model in models for spelling in spellings(model, provider))


def _caps_on(limits: ModelCaps, name: str, provider: str) -> tuple[Cap, ...]:
    found = spellings(name, provider)
    hits: list[ModelLimit] = []
    for spelling in found:
        hits += limits.by_name.get(spelling, ())
    hits += [limit for limit in limits.patterns if _fits(limit.parts, found)]
    bound = {limit.id: limit for limit in hits if limit.provider in (None, provider)}
    return tuple(cap for limit in sorted(bound.values(), key=_narrowest) for cap in limit.caps)


def spellings(name: str, provider: str = "") -> tuple[str, ...]:
    """Everything this model may be listed as, in lower case, the name itself first; never more than some ten."""
    return _spellings(name, provider) if len(name) <= LONGEST_MODEL_NAME else _long(name, provider)


@lru_cache(CACHED)
def _spellings(name: str, provider: str) -> tuple[str, ...]:
    whole = name.strip().lower()
    found = dict.fromkeys(spelling for tail in _tails(whole) for spelling in _undated(tail, in_path="/" in whole))
    return (*found, *(f"{provider}/{spelling}" for spelling in found)) if provider else tuple(found)


def _long(name: str, provider: str) -> tuple[str, ...]:
    """Padding does not make another model of it; a name that is long by itself is nobody's."""
    bare = name.strip()
    return _spellings(bare, provider) if len(bare) <= LONGEST_MODEL_NAME else (bare.lower(),)


def _tails(whole: str) -> Iterator[str]:
    """`accounts/x/models/y`, then `y`, and what may be written between: `openai/gpt-4o` of a router's `x/openai/gpt-4o`."""
    parts = whole.split("/")
    yield whole
    for start in range(max(1, len(parts) - 2), len(parts)):
        yield "/".join(parts[start:])


def _undated(name: str, *, in_path: bool) -> Iterator[str]:
    """A name, then the same model without version, variant and date."""
    yield name
    head, _, _ = name[1:].partition("@")  # Vertex: claude-sonnet-4@20250514; an @ that begins a name belongs to it
    bare = name[:1] + head
    if in_path and not bare.startswith("ft:"):
        bare = bare.partition(":")[0]  # routers' variants: openai/gpt-4o:nitro
    bare = _BEDROCK_VERSION.sub("", bare.removesuffix(_TAG))
    for spelling in (bare, _BEDROCK_VENDOR.sub("", bare, count=1) if _BEDROCK_VENDOR.match(bare) else bare):
        if not spelling:
            continue
        yield spelling
        if undated := _SNAPSHOT.sub("", spelling):
            yield undated
        if (final := _TRIAL.sub("", spelling)) != spelling:
            yield _SNAPSHOT.sub("", final)


@lru_cache(CACHED)
def _compiled(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[tuple[str, ...], ...]]:
    """A list as (names, patterns cut at their stars)."""
    written = [ModelLimit.normal(pattern) for pattern in patterns]
    return frozenset(name for name in written if ANY not in name), tuple(tuple(name.split(ANY)) for name in written if ANY in name)


def _fits(parts: tuple[str, ...], names: Iterable[str]) -> bool:
    """Whether one of the names has the parts in this order, the first at its beginning and the last at its end."""
    first, *middle, last = parts
    for name in names:
        if not name.startswith(first):
            continue
        at = len(first)
        for part in middle:
            at = name.find(part, at)
            if at < 0:
                break
            at += len(part)
        else:
            if name.endswith(last) and len(name) - len(last) >= at:
                return True
    return False


def _narrowest(limit: ModelLimit) -> tuple[bool, bool, bool, str, str]:
    return limit.model_name == ANY, bool(limit.parts), limit.provider is None, limit.model_name, limit.id
