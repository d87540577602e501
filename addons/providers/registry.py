"""Which provider a host belongs to, and what a path on it is: metered, free, or unknown."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from addons.providers import anthropic, gemini, openai_chat, openai_responses, paths
from addons.providers.dialect import Dialect
from addons.providers.families import FAMILIES, ProviderFamily
from addons.providers.openai_embeddings import OpenAIEmbeddings
from addons.providers.ratios import TOKENS_PER_BYTE_P99

__all__ = [
    "DIALECTS",
    "FAMILIES",
    "TOKENS_PER_BYTE_P99",
    "Endpoint",
    "PathKind",
    "ProviderFamily",
    "endpoint",
    "family_of_host",
    "is_websocket_path",
    "residency_of_host",
    "same_call_path",
    "upstream_path",
]  # fmt: skip


class PathKind(StrEnum):
    METERED = "metered"
    FREE = "free"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one (provider, method, path) is."""

    kind: PathKind
    dialect: Dialect | None = None
    operation: str = ""
    """`request_type` of refusals and logs; empty for what is not metered."""
    model: str | None = None
    """The model, where the path names it (Gemini)."""
    websocket: bool = False
    """A WebSocket upgrade to this path would spend money: with a GET that asks for one, answer 426."""


_CHAT_MAX_COMPLETION_TOKENS = openai_chat.OpenAIChat("max_completion_tokens")
_CHAT_OPENAI = openai_chat.OpenAIChat("max_completion_tokens", completion_default=16)
_CHAT_MAX_TOKENS = openai_chat.OpenAIChat("max_tokens")
_RESPONSES = openai_responses.OpenAIResponses()
_EMBEDDINGS = OpenAIEmbeddings()
_ANTHROPIC = anthropic.Anthropic()
_GEMINI = gemini.Gemini()

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (_CHAT_MAX_COMPLETION_TOKENS, _RESPONSES, _EMBEDDINGS, _ANTHROPIC, _GEMINI)
}
"""One instance for each dialect, for those who have no endpoint at hand (error events)."""

_READING_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_HOST_WITH_PORT = re.compile(r"(.*?)(?::\d{1,5})?\Z", re.DOTALL)
_PATTERNS = tuple((re.compile(pattern), family) for family in FAMILIES.values() for pattern in family.host_patterns)
_EXACT_HOSTS = {host: family for family in FAMILIES.values() for host in family.hosts if not host.startswith(".")}
_SUFFIXES = tuple((host, family) for family in FAMILIES.values() for host in family.hosts if host.startswith("."))


def family_of_host(host: str) -> ProviderFamily | None:
    """The provider whose public host this is. Case, one dot at the end and a port make no difference; None otherwise."""
    match = _HOST_WITH_PORT.match(host)
    name = (match[1] if match else host).lower()
    name = name[:-1] if name.endswith(".") else name
    if not name or not name.isascii():
        return None
    family = _EXACT_HOSTS.get(name)
    if family is not None:
        return family
    for suffix, owner in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return owner
    return next((owner for pattern, owner in _PATTERNS if pattern.fullmatch(name)), None)


_RESIDENCY_HOST = re.compile(r"([a-z]{2})\.api\.openai\.com|(us|ca)-api\.together\.ai")


def residency_of_host(host: str) -> str | None:
    """The region (`eu`, `us`) of a host that processes in one place for a surcharge; None for every other host."""
    match = _RESIDENCY_HOST.fullmatch(host.lower().rstrip("."))
    return (match[1] or match[2]) if match else None


_OPENAI_SHAPED_PATH = re.compile(r"/v1(?=/(?:chat/completions|embeddings)/?\Z)")


def upstream_path(family: ProviderFamily, path: str) -> str:
    """The path at the provider for a path behind our prefix: `/v1` is optional, the API's own prefix is put in front.

    `/v1/chat/completions` and `/chat/completions` behind `/groq` both become `/openai/v1/chat/completions`.
    """
    if family.openai_prefix:
        return _OPENAI_SHAPED_PATH.sub(family.openai_prefix, path)
    base = family.base_path
    if not base or path == base or path.startswith((base + "/", base + "?")):
        return path
    if base.endswith("/v1") and (path == "/v1" or path.startswith(("/v1/", "/v1?"))):
        return base + path[3:]
    return base + path


_CALL_ENDING = re.compile(r"((?:/chat)?/completions|/responses(?:/compact)?|/embeddings|/messages)\Z")


def same_call_path(family: ProviderFamily, path: str) -> str:
    """The path below a provider's address at which it takes the call that `path` is at another provider of the same protocol.

    Paths that hold the model (Gemini) are the same everywhere.
    """
    return _remembered_path(family, path) if len(path) <= paths.SHORT else _same_call_path(family, path)


def _same_call_path(family: ProviderFamily, path: str) -> str:
    ending = _CALL_ENDING.search(paths.canonical(path).lower())
    if ending is None:
        return path
    if ending[1] == "/messages":
        return f"{family.anthropic_prefix}/v1/messages"
    return (family.openai_prefix or "/v1") + ending[1]


_remembered_path = lru_cache(1024)(_same_call_path)


def endpoint(family: ProviderFamily, method: str, path: str) -> Endpoint:
    """What a call of this method to this path (as the provider knows it; a query is ignored) is.

    A path that some server might take for a metered one is metered or unknown, never free. Nobody reads with GET what
    can only be posted, so there a GET is unknown too: Google's servers let a header name another method.
    """
    # Calls come to a handful of paths; what came once is known, as long as it is short enough to be kept.
    return _remembered(family, method, path) if len(path) + len(method) <= paths.SHORT else _endpoint(family, method, path)


def _endpoint(family: ProviderFamily, method: str, path: str) -> Endpoint:
    verb = method.upper()
    canonical = paths.canonical(path)
    if verb in _READING_METHODS and not _GEMINI_PATH.fullmatch(canonical.lower()):
        return Endpoint(PathKind.FREE, websocket=verb == "GET" and is_websocket_path(family, path))
    metered = _metered(family, canonical)
    if metered is not None:
        return metered if verb == "POST" else Endpoint(PathKind.UNKNOWN)
    if not paths.is_plain(path):
        return Endpoint(PathKind.UNKNOWN)
    if verb == "DELETE" or _is_free(family, canonical.lower()):
        return Endpoint(PathKind.FREE)
    return Endpoint(PathKind.UNKNOWN)


_remembered = lru_cache(4096)(_endpoint)


_VERSION = r"(?:/v\d+[a-z0-9]*)?"
_GEMINI_PATH = re.compile(
    r"/v\d+[a-z0-9]*/(?:models|tunedmodels)/[^/:]+:"
    r"(generatecontent|streamgeneratecontent|embedcontent|batchembedcontents)"
)
_CODE_ASSIST_PATH = re.compile(r"/v\d+internal:(?:generatecontent|streamgeneratecontent)")
_OPENAI_ENDINGS: tuple[tuple[str, str], ...] = (
    ("/chat/completions", openai_chat.CHAT),
    ("/completions", openai_chat.COMPLETION),
    ("/responses", openai_responses.RESPONSES),
    ("/responses/compact", openai_responses.RESPONSES),
    ("/embeddings", gemini.EMBEDDING),
)


def _metered(family: ProviderFamily, canonical: str) -> Endpoint | None:
    lower = canonical.lower()
    if "gemini" in family.protocols:
        if match := _GEMINI_PATH.fullmatch(lower):
            operation = gemini.EMBEDDING if "embed" in match[1] else gemini.GENERATE
            return Endpoint(PathKind.METERED, _GEMINI, operation, gemini.model_of_path(canonical))
        if _CODE_ASSIST_PATH.fullmatch(lower):
            return Endpoint(PathKind.METERED, _GEMINI, gemini.GENERATE)
    if "anthropic" in family.protocols and re.fullmatch(rf"(?:/anthropic|/api|/inference)*{_VERSION}/messages", lower):
        return Endpoint(PathKind.METERED, _ANTHROPIC, anthropic.MESSAGES)
    if "openai" in family.protocols:
        for ending, operation in _OPENAI_ENDINGS:
            if lower.endswith(ending):
                return Endpoint(PathKind.METERED, _openai_dialect(family, operation), operation)
    return None


def _openai_dialect(family: ProviderFamily, operation: str) -> Dialect:
    if operation == openai_responses.RESPONSES:
        return _RESPONSES
    if operation == gemini.EMBEDDING:
        return _EMBEDDINGS
    if family.name == "openai":
        return _CHAT_OPENAI
    return _CHAT_MAX_TOKENS if family.limit_field == "max_tokens" else _CHAT_MAX_COMPLETION_TOKENS


_FREE_PATHS = {
    "openai": re.compile(rf"{_VERSION}/(?:moderations|responses/input_tokens|responses/[^/]+/cancel|batches/[^/]+/cancel)"),
    "anthropic": re.compile(
        r"/v1/messages/batches/[^/]+/cancel|/v1/oauth/.+"
        r"|/api/(?:claude_code|claude_cli|event_logging|oauth|eval|hello|features|statsig)(?:[/_].*)?"
        r"|/api/claude_(?:code|cli)_[a-z_]+(?:/.*)?"
    ),
    "gemini": re.compile(
        r"/v\d+[a-z0-9]*/(?:models|tunedmodels)/[^/:]+:(?:counttokens|countmessagetokens|counttexttokens)"
        r"|/v\d+internal:(?:counttokens|loadcodeassist|onboarduser|retrieveuserquota|fetchadmincontrols"
        r"|recordcodeassistmetrics|recordclientevent|listexperiments|setcodeassistglobalusersetting)"
    ),
    "chatgpt": re.compile(r"/backend-api/codex/analytics-events(?:/.*)?"),
    "xai": re.compile(r"/v1/tokenize-text"),
    "vllm": re.compile(r"(?:/v1)?/(?:tokenize|detokenize)"),
}


_COUNTING = re.compile(r"(?:/anthropic|/api|/inference)*/v1/messages/count_tokens|(?:/[a-z]+)*/v1/responses/input_tokens")


def _is_free(family: ProviderFamily, lower: str) -> bool:
    if _COUNTING.fullmatch(lower):
        return True
    pattern = _FREE_PATHS.get(family.name)
    if pattern is not None and pattern.fullmatch(lower):
        return True
    return family.website and not (lower + "/").startswith(family.api_prefixes)


_SOCKETS = re.compile(
    r"(?:.*/)?(?:responses|realtime|live/sessions)"
    r"|/ws/google\.ai\.generativelanguage\..+|/ws/google\.cloud\.aiplatform\..+"
)


def is_websocket_path(family: ProviderFamily, path: str) -> bool:
    """True when a WebSocket upgrade to this path would run model calls, at any provider and in any spelling."""
    return _SOCKETS.fullmatch(paths.canonical(path).lower()) is not None
