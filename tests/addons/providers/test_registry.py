"""Hosts belong to exactly one provider, and no spelling of a path makes a metered call free."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers import paths
from addons.providers.registry import (
    DIALECTS,
    FAMILIES,
    TOKENS_PER_BYTE_P99,
    PathKind,
    endpoint,
    family_of_host,
    is_websocket_path,
    residency_of_host,
    upstream_path,
)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "openai"),
        ("API.OpenAI.com.", "openai"),
        ("api.openai.com:443", "openai"),
        ("api.openai.com.:8443", "openai"),
        ("eu.api.openai.com", "openai"),
        ("chatgpt.com", "chatgpt"),
        ("api.anthropic.com", "anthropic"),
        ("generativelanguage.googleapis.com", "gemini"),
        ("us-central1-aiplatform.googleapis.com", "vertex"),
        ("aiplatform.us.rep.googleapis.com", "vertex"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("bedrock-runtime-fips.us-gov-west-1.api.aws", "bedrock"),
        ("vpce-1a-2b.bedrock-runtime.us-east-1.vpce.amazonaws.com", "bedrock"),
        ("my-company.openai.azure.com", "azure"),
        ("api.groq.com", "groq"),
        ("openrouter.ai", "openrouter"),
        ("api.cohere.ai", "cohere"),
    ],
)
def test_known_hosts(host: str, name: str) -> None:
    family = family_of_host(host)

    assert family is not None
    assert name == family.name


@pytest.mark.parametrize(
    "host",
    [
        "", ".", "openai.com", "api.openai.com.evil.com", "evil-api.openai.com", "xapi.openai.com", "api.openai.com..",
        "api.openai.com@evil.com", "api.openai.com/evil", "api.openai.com:443:1", "api.openai.com\n", ".openai.azure.com",
        "openai.azure.com", "openai.azure.com.evil.com", "storage.googleapis.com", "aiplatform.googleapis.com.evil.com",
        "bedrock-runtime.evil.com", "bedrock-runtime.us-east-1.amazonaws.com.evil", "api.openаi.com", "www.chatgpt.com",
        "127.0.0.1", "[::1]:443", "api.openai.com:https",
    ],
)  # fmt: skip
def test_hosts_of_nobody(host: str) -> None:
    assert family_of_host(host) is None


METERED = [
    ("openai", "/v1/chat/completions", "openai_chat", "chat_completion"),
    ("openai", "/v1/completions", "openai_chat", "text_completion"),
    ("openai", "/v1/responses", "openai_responses", "responses"),
    ("openai", "/v1/responses/compact", "openai_responses", "responses"),
    ("openai", "/v1/embeddings", "openai_embeddings", "embedding"),
    ("chatgpt", "/backend-api/codex/responses", "openai_responses", "responses"),
    ("anthropic", "/v1/messages", "anthropic", "messages"),
    ("deepseek", "/anthropic/v1/messages", "anthropic", "messages"),
    ("deepseek", "/chat/completions", "openai_chat", "chat_completion"),
    ("openrouter", "/api/v1/messages", "anthropic", "messages"),
    ("openrouter", "/api/v1/chat/completions", "openai_chat", "chat_completion"),
    ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent", "gemini", "generate_content"),
    ("gemini", "/v1/models/gemini-3-pro:streamGenerateContent", "gemini", "generate_content"),
    ("gemini", "/v1alpha/tunedModels/mine:generateContent", "gemini", "generate_content"),
    ("gemini", "/v1beta/models/e:batchEmbedContents", "gemini", "embedding"),
    ("gemini", "/v1internal:streamGenerateContent", "gemini", "generate_content"),
    ("gemini", "/v1beta/openai/chat/completions", "openai_chat", "chat_completion"),
    ("groq", "/openai/v1/chat/completions", "openai_chat", "chat_completion"),
    ("fireworks", "/inference/v1/chat/completions", "openai_chat", "chat_completion"),
    ("vllm", "/v1/chat/completions", "openai_chat", "chat_completion"),
]


@pytest.mark.parametrize(("name", "path", "dialect", "operation"), METERED)
def test_metered(name: str, path: str, dialect: str, operation: str) -> None:
    for spelled in (path, path + "?beta=true", path + "/"):
        found = endpoint(FAMILIES[name], "POST", spelled)

        assert found.dialect is not None
        assert (PathKind.METERED, dialect, operation) == (found.kind, found.dialect.name, found.operation)


FREE = [
    ("openai", "POST", "/v1/moderations"),
    ("openai", "POST", "/v1/responses/input_tokens"),
    ("openai", "POST", "/v1/responses/resp_1/cancel"),
    ("openai", "GET", "/v1/responses/resp_1"),
    ("openai", "GET", "/v1/models"),
    ("openai", "DELETE", "/v1/files/file-1"),
    ("openai", "OPTIONS", "/v1/chat/completions"),
    ("anthropic", "POST", "/v1/messages/count_tokens?beta=true"),
    ("anthropic", "HEAD", "/"),
    ("anthropic", "POST", "/api/event_logging/batch"),
    ("anthropic", "POST", "/api/claude_code/metrics"),
    ("anthropic", "GET", "/api/claude_code/settings"),
    ("anthropic", "POST", "/api/claude_cli_feedback"),
    ("anthropic", "POST", "/v1/oauth/token"),
    ("gemini", "POST", "/v1beta/models/gemini-2.5-flash:countTokens"),
    ("gemini", "POST", "/v1internal:loadCodeAssist"),
    ("gemini", "GET", "/v1beta/models"),
    ("chatgpt", "POST", "/backend-api/conversation"),
    ("chatgpt", "POST", "/backend-api/codex/analytics-events/events"),
    ("openrouter", "POST", "/login"),
    ("openrouter", "POST", "/api/v1/messages/count_tokens"),
]


@pytest.mark.parametrize(("name", "method", "path"), FREE)
def test_free(name: str, method: str, path: str) -> None:
    assert endpoint(FAMILIES[name], method, path).kind is PathKind.FREE


UNKNOWN = [
    ("openai", "POST", "/v1/images/generations"),
    ("openai", "POST", "/v1/batches"),
    ("openai", "POST", "/v1/files"),
    ("openai", "POST", "/v1/audio/speech"),
    ("openai", "POST", "/v1/threads/t/messages"),
    ("openai", "PUT", "/v1/chat/completions"),
    ("openai", "PATCH", "/v1/anything"),
    ("openai", "BREW", "/v1/moderations/x"),
    ("anthropic", "POST", "/v1/messages/batches"),
    ("anthropic", "POST", "/v1/complete"),
    ("anthropic", "POST", "/v1/chat/completions/x"),
    ("gemini", "POST", "/v1beta/models/m:predict"),
    ("gemini", "POST", "/v1beta/cachedContents"),
    ("gemini", "GET", "/v1beta/models/gemini-2.5-flash:generateContent"),
    ("openrouter", "POST", "/api/v1/keys"),
    ("chatgpt", "POST", "/backend-api/codex/something"),
    ("bedrock", "POST", "/model/m/converse"),
    ("azure", "POST", "/openai/deployments/d/chat/completions"),
    ("vertex", "POST", "/v1/projects/p/locations/l/publishers/google/models/m:generateContent"),
    ("cohere", "POST", "/v2/chat"),
]


@pytest.mark.parametrize(("name", "method", "path"), UNKNOWN)
def test_unknown(name: str, method: str, path: str) -> None:
    assert endpoint(FAMILIES[name], method, path).kind is PathKind.UNKNOWN


def disguised(path: str, chance: random.Random) -> str:
    """The path as a careless server might still understand it."""
    segments = path.split("/")[1:]
    out = ""
    for segment in segments:
        out += chance.choice(["/", "//", "/./", "/x/../", "/%2e/", "\\", "/%2F", "/%252f"])
        letters = (
            f"%{ord(c):02x}" if chance.random() < 0.3 else f"%25{ord(c):02X}" if chance.random() < 0.1 else c for c in segment
        )
        out += "".join(c.upper() if chance.random() < 0.1 and c.islower() and len(c) == 1 else c for c in letters)
        out += chance.choice(["", "", ";a=b", "%20", "\t"])
    return out + chance.choice(["", "/", "//", "?x", "#x", "%3fx=/v1/moderations", "/."])


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, path, _, _ in METERED])
def test_no_disguise_makes_a_metered_path_free(name: str, path: str) -> None:
    for seed in range(200):
        spelled = disguised(path, random.Random(seed))

        found = endpoint(FAMILIES[name], "POST", spelled)

        assert found.kind is not PathKind.FREE, spelled


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.sampled_from(["GET", "POST", "post", "DELETE", "X"]), st.text(max_size=40))
def test_any_path(name: str, method: str, path: str) -> None:
    found = endpoint(FAMILIES[name], method, path)

    assert (found.dialect is not None) == (found.kind is PathKind.METERED)
    assert paths.canonical(paths.canonical(path).replace("%", "")).startswith("/")


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash"),
        ("/v1beta/models/gemini-2.5-flash%3AgenerateContent?key=x", "gemini-2.5-flash"),
        ("/v1beta/tunedModels/mine-1:generateContent", "tunedModels/mine-1"),
        ("/v1internal:generateContent", None),
    ],
)
def test_model_of_the_path(path: str, model: str | None) -> None:
    assert endpoint(FAMILIES["gemini"], "POST", path).model == model


def test_renaming_the_model_of_a_path() -> None:
    gemini = DIALECTS["gemini"]
    facts = gemini.read_request("generate_content", "/v1beta/models/a:generateContent", "", b'{"contents":[]}')

    assert gemini.rename_model(facts, "/v1beta/models/a:generateContent", "b/c") == ("/v1beta/models/b%2Fc:generateContent", None)
    assert gemini.rename_model(facts, "/v1beta/models/a%3AgenerateContent", "b") == ("/v1beta/models/b:generateContent", None)


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("openai", "/chat/completions", "/v1/chat/completions"),
        ("openai", "/v1/chat/completions", "/v1/chat/completions"),
        ("groq", "/v1/models", "/openai/v1/models"),
        ("groq", "/openai/v1/models", "/openai/v1/models"),
        ("openrouter", "/chat/completions", "/api/v1/chat/completions"),
        ("anthropic", "/v1/messages", "/v1/messages"),
        ("perplexity", "/chat/completions", "/chat/completions"),
        ("gemini", "/v1/chat/completions", "/v1beta/openai/chat/completions"),
        ("gemini", "/v1/models/x:generateContent", "/v1/models/x:generateContent"),
        ("vllm", "/v1/chat/completions", "/v1/chat/completions"),
    ],
)
def test_upstream_path(name: str, path: str, expected: str) -> None:
    assert upstream_path(FAMILIES[name], path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/responses", True), ("/v1/realtime?model=x", True), ("/v1//Responses/", True), ("/backend-api/codex/responses", True),
        ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", True), ("/v1/models", False),
    ],
)  # fmt: skip
def test_websocket_paths(path: str, expected: bool) -> None:
    assert is_websocket_path(FAMILIES["openai"], path) is expected
    assert endpoint(FAMILIES["openai"], "GET", path).websocket is expected


def test_residency() -> None:
    assert ["eu", "us", "us", None, None, None] == [
        residency_of_host(host)
        for host in (
            "eu.api.openai.com",
            "US.api.openai.com.",
            "us-api.together.ai",
            "api.openai.com",
            "x.com",
            "eu.api.openai.com.evil",
        )
    ]


def test_every_dialect_has_a_ratio_and_every_family_makes_sense() -> None:
    assert set(TOKENS_PER_BYTE_P99) == set(DIALECTS)
    for name, family in FAMILIES.items():
        assert name == family.name
        assert family.auth in {"bearer", "x-api-key", "x-goog-api-key", "api-key", "none"}
        assert family.error_dialect in {"openai", "anthropic", "gemini", "bedrock"}
        assert family.base_url == "" or family.base_url.startswith(("https://", "http://127.0.0.1:"))
        assert not family.base_url.endswith("/")
        assert not family.prices_of or family.prices_of in FAMILIES
        for host in family.hosts:
            assert family_of_host("tenant" + host if host.startswith(".") else host) is family


def test_the_limit_each_provider_understands() -> None:
    body = b'{"model":"m","messages":[]}'
    fields = {}
    for name in ("openai", "groq", "mistral", "deepseek", "vllm", "gemini", "cerebras"):
        dialect = endpoint(FAMILIES[name], "POST", "/v1/chat/completions").dialect
        assert dialect is not None
        fields[name] = dialect.read_request("chat_completion", "", "", body).output_limit_path

    new, old = ("max_completion_tokens",), ("max_tokens",)
    assert fields == {
        "openai": new, "groq": new, "mistral": old, "deepseek": old, "vllm": old, "gemini": old, "cerebras": new
    }  # fmt: skip
