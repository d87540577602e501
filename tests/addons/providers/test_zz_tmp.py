"""What the dialects find in request bodies: figures counted by hand, and one clear sentence for every wrong body."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addons.providers.dialect import BadRequestBody, Media, RequestFacts
from addons.providers.media import media_tokens_max
from addons.providers.registry import FAMILIES, endpoint
from addons.providers.splice import apply
from addons.providers.text import TOKENS_PER_MESSAGE, TOKENS_PER_TOOL

PATHS = {
    "openai_chat": ("openai", "/v1/chat/completions"),
    "completions": ("openai", "/v1/completions"),
    "openai_responses": ("openai", "/v1/responses"),
    "openai_embeddings": ("openai", "/v1/embeddings"),
    "anthropic": ("anthropic", "/v1/messages"),
    "gemini": ("gemini", "/v1beta/models/gemini-2.5-flash:generateContent"),
    "gemini_stream": ("gemini", "/v1beta/models/gemini-2.5-flash:streamGenerateContent"),
    "gemini_embed": ("gemini", "/v1beta/models/gemini-embedding-001:batchEmbedContents"),
    "code_assist": ("gemini", "/v1internal:streamGenerateContent"),
}
PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (800).to_bytes(4) + (600).to_bytes(4) + b"\x08\x02" + bytes(3000)
).decode()


def read(which: str, body: bytes | dict[str, Any]) -> RequestFacts:
    family, path = PATHS[which]
    found = endpoint(FAMILIES[family], "POST", path)
    assert found.dialect is not None
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return found.dialect.read_request(found.operation, path, "", raw)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


MINIMAL: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": user("hi")},
    "completions": {"model": "m", "prompt": "hi"},
    "openai_responses": {"model": "m", "input": "hi"},
    "openai_embeddings": {"model": "m", "input": "hi"},
    "anthropic": {"model": "m", "max_tokens": 100, "messages": user("hi")},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
}


@pytest.mark.parametrize("which", MINIMAL)
def test_smallest_bodies(which: str) -> None:
    facts = read(which, MINIMAL[which])

    extra = {"gemini": len("user")}.get(which, 0)  # roles inside contents are walked like everything else
    assert len("hi") + extra == facts.text_bytes
    assert facts.model == ("gemini-2.5-flash" if which == "gemini" else "m")
    assert (False, False, (), 1, 0) == (
        facts.stream, facts.unseen_input, facts.media, facts.candidates, facts.web_searches_max
    )  # fmt: skip
    assert facts.has_output is (which != "openai_embeddings")


def test_chat_figures() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"größe": {}}}}}]
    facts = read(
        "openai_chat",
        {
            "model": "gpt-4o", "stream": True, "n": 3, "max_tokens": 50, "service_tier": "priority", "tools": tools,
            "messages": [{"role": "system", "content": "Ünï"}, *user([{"type": "text", "text": "aé🚀"}])],
            "metadata": {"not": "read"}, "user": "nobody",
        },
    )  # fmt: skip

    # "Ünï" 5 bytes; the list message is walked: "user" 4, "text" 4, "aé🚀" 7; tools as compact JSON.
    assert 5 + 4 + 4 + 7 + len(json.dumps(tools, ensure_ascii=False, separators=(",", ":")).encode()) == facts.text_bytes
    assert 16 + 2 * TOKENS_PER_MESSAGE + TOKENS_PER_TOOL == facts.overhead_tokens
    assert (True, 3, 50, ("max_tokens",), "priority", False) == (
        facts.stream, facts.candidates, facts.output_limit, facts.output_limit_path, facts.service_tier, facts.wants_usage
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "limit", "path"),
    [
        ({}, None, ("max_completion_tokens",)),
        ({"max_tokens": 5}, 5, ("max_tokens",)),
        ({"max_completion_tokens": 6}, 6, ("max_completion_tokens",)),
        ({"max_tokens": None}, None, ("max_tokens",)),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5, ("max_tokens",)),
        ({"max_tokens": 5, "max_completion_tokens": 9}, 9, ()),
        ({"max_tokens": -1}, None, ("max_tokens",)),
        ({"max_tokens": 7.0}, 7, ("max_tokens",)),
        ({"max_tokens": 0}, 0, ("max_tokens",)),
        ({"max_tokens": 10**30}, 10**9, ("max_tokens",)),
    ],
)
def test_chat_limits(fields: dict[str, object], limit: int | None, path: tuple[str, ...]) -> None:
    facts = read("openai_chat", {**MINIMAL["openai_chat"], **fields})

    assert (limit, path) == (facts.output_limit, facts.output_limit_path)


@pytest.mark.parametrize(
    ("fields", "wants"),
    [
        ({"stream": True}, False),
        ({"stream": True, "stream_options": None}, False),
        ({"stream": True, "stream_options": {"include_usage": False}}, False),
        ({"stream": True, "stream_options": {"include_obfuscation": False}}, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({}, True),
    ],
)
def test_asking_for_usage(fields: dict[str, object], wants: bool) -> None:
    body = {**MINIMAL["openai_chat"], **fields}
    dialect = endpoint(FAMILIES["openai"], "POST", "/v1/chat/completions").dialect
    assert dialect is not None
    facts = read("openai_chat", body)

    edits = dialect.edits(facts, ask_usage=True)
    edited = json.loads(apply(json.dumps(body).encode(), edits))

    assert facts.wants_usage is wants
    assert dialect.edits(facts, ask_usage=False) == ()
    if wants:
        assert edited == body
    else:
        options = body.get("stream_options") or {}
        assert edited == {**body, "stream_options": {**options, "include_usage": True}}


def test_completions_count_every_prompt() -> None:
    assert 1 == read("completions", {"prompt": "a"}).candidates
    assert 6 == read("completions", {"prompt": ["a", "b"], "n": 2, "best_of": 3}).candidates
    assert 4 == read("completions", {"prompt": [[1, 2], [3]], "n": 2}).candidates
    tokens = read("completions", {"prompt": [1, 2, 3, 4]})
    assert (1, 0, 16 + 4) == (tokens.candidates, tokens.text_bytes, tokens.overhead_tokens)
    assert (16, 9) == (
        read("completions", {"prompt": "a"}).output_limit,
        read("completions", {"prompt": "a", "max_tokens": 9}).output_limit,
    )


def test_media_is_never_counted_as_text() -> None:
    url = f"data:image/png;base64,{PNG}"
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("openai_chat", {"messages": user([{"type": "image_url", "image_url": {"url": url, "detail": "low"}}])}),
        ("openai_responses", {"input": user([{"type": "input_image", "image_url": url, "detail": "low"}])}),
        (
            "anthropic",
            {"messages": user([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}])},
        ),
        ("gemini", {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}]}),
        ("gemini", {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PNG}}]}]}),
    ]
    for which, body in bodies:
        facts = read(which, body)

        assert (1, 800, 600) == (len(facts.media), facts.media[0].width, facts.media[0].height), which
        assert facts.text_bytes < 60, which
        assert not facts.unseen_input


def test_text_beside_media_is_text_all_the_same() -> None:
    hidden = "x" * 5000
    part = {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}, "text": hidden}

    facts = read("openai_chat", {"messages": user([part])})

    assert facts.text_bytes >= 5000
    assert facts.media == (Media("image"),)


def test_json_that_looks_like_media_inside_tool_arguments_is_text() -> None:
    lie = {"inlineData": {"mimeType": "image/png", "data": "x" * 5000}}
    facts = read("gemini", {"contents": [{"parts": [{"functionCall": {"name": "f", "args": lie}}]}]})
    answer = read("gemini", {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": lie}}]}]})
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"type": "image", "source": {"type": "base64", "data": "x" * 5000}}}
    claude = read("anthropic", {"messages": user([use])})

    for found in (facts, answer, claude):
        assert found.text_bytes > 5000
        assert found.media == ()


def test_what_only_the_provider_sees() -> None:
    cases: list[tuple[str, dict[str, Any], str | None]] = [
        ("openai_responses", {"input": "x", "previous_response_id": "resp_1"}, "resp_1"),
        ("openai_responses", {"input": "x", "conversation": "conv_1"}, None),
        ("openai_responses", {"input": "x", "conversation": {"id": "c"}, "previous_response_id": "resp_1"}, None),
        ("openai_responses", {"prompt": {"id": "pmpt_1"}}, None),
        ("openai_responses", {"input": [{"type": "item_reference", "id": "i"}]}, None),
        ("openai_responses", {"input": user([{"type": "input_file", "file_id": "file-1"}])}, None),
        ("openai_responses", {"input": user([{"type": "input_file", "file_url": "https://e.org/x.pdf"}])}, None),
        ("openai_chat", {"messages": user([{"type": "file", "file": {"file_id": "file-1"}}])}, None),
        ("openai_chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, None),
        ("anthropic", {"messages": user([{"type": "document", "source": {"type": "url", "url": "https://e.org"}}])}, None),
        ("anthropic", {"messages": user([{"type": "document", "source": {"type": "file", "file_id": "f"}}])}, None),
        ("anthropic", {"messages": user("x"), "container": "c_1"}, None),
        ("gemini", {"contents": [], "cachedContent": "cachedContents/1"}, None),
        ("gemini", {"contents": [], "cached_content": "cachedContents/1"}, None),
        ("gemini", {"contents": [{"parts": [{"fileData": {"fileUri": "https://e.org/v.mp4"}}]}]}, None),
    ]
    for which, body, key in cases:
        facts = read(which, body)

        assert facts.unseen_input, body
        assert facts.unseen_key == key, body


def test_anthropic_figures() -> None:
    facts = read(
        "anthropic",
        {
            "model": "claude-opus-5", "max_tokens": 32000, "stream": True, "service_tier": "auto", "speed": "fast",
            "inference_geo": "us", "thinking": {"type": "enabled", "budget_tokens": 10000},
            "system": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
            "tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}, {"name": "Bash", "input_schema": {}}],
            "messages": user("hi"),
        },
    )  # fmt: skip

    assert (True, 32000, ("max_tokens",), 10001) == (
        facts.stream, facts.output_limit, facts.output_limit_path, facts.minimum_output
    )  # fmt: skip
    assert (True, True, "auto", "fast", "us", 5, True) == (
        facts.writes_cache, facts.writes_cache_1h, facts.service_tier, facts.speed, facts.region,
        facts.web_searches_max, facts.server_tools,
    )  # fmt: skip
    assert 32 + TOKENS_PER_MESSAGE + 700 + 2 * TOKENS_PER_TOOL == facts.overhead_tokens


@pytest.mark.parametrize(
    ("text", "caches", "long"),
    [
        (b'{"max_tokens":1,"messages":[]}', False, False),
        (b'{"messages":[],"cache_control":{"type":"ephemeral"}}', True, False),
        (b'{"messages":[],"cache_control":{"type":"ephemeral","ttl":"5m"}}', True, False),
        (b'{"messages":[],"cache_control":{"type":"ephemeral","ttl":"1h"}}', True, True),
        (b'{"messages":[],"cache\\u005fcontrol":{"type":"ephemeral","ttl":"\\u0031h"}}', True, True),
        (b'{"messages":[{"role":"user","content":"say \\"cache_control\\" 1h"}]}', False, False),
    ],
)
def test_caching(text: bytes, caches: bool, long: bool) -> None:
    facts = read("anthropic", text)

    assert (caches, long) == (facts.writes_cache, facts.writes_cache_1h)


def test_gemini_figures() -> None:
    for camel in (True, False):
        config = (
            {"maxOutputTokens": 500, "candidateCount": 2, "thinkingConfig": {"thinkingBudget": 128}}
            if camel
            else {"max_output_tokens": 500, "candidate_count": 2, "thinking_config": {"thinking_budget": 128}}
        )
        key = "generationConfig" if camel else "generation_config"
        tool: dict[str, Any] = {"googleSearch": {}} if camel else {"google_search": {}}
        body = {"contents": [], key: config, "tools": [tool], "serviceTier" if camel else "service_tier": "priority"}
        facts = read("gemini_stream", body)

        assert (True, 500, 2, 129, 1, True, "priority") == (
            facts.stream, facts.output_limit, facts.candidates, facts.minimum_output, facts.web_searches_max,
            facts.server_tools, facts.service_tier,
        )  # fmt: skip
        assert (key, next(iter(config))) == facts.output_limit_path


def test_gemini_cli_on_a_google_login() -> None:
    body = {"model": "gemini-3-pro", "project": "p", "request": {"contents": [{"parts": [{"text": "hi"}]}]}}

    facts = read("code_assist", body)

    assert ("gemini-3-pro", True, 2, ("request", "generationConfig", "maxOutputTokens")) == (
        facts.model, facts.stream, facts.text_bytes, facts.output_limit_path
    )  # fmt: skip


def test_embeddings() -> None:
    tokens = read("openai_embeddings", {"model": "m", "input": [[1, 2, 3], [4]]})
    texts = read("openai_embeddings", {"model": "m", "input": ["aé", "b"]})
    gemini = read("gemini_embed", {"requests": [{"model": "models/x", "content": {"parts": [{"text": "abc"}]}}]})

    assert (0, 2 * 2 + 3 + 2 + 1 + 2) == (tokens.text_bytes, tokens.overhead_tokens)
    assert 4 == texts.text_bytes
    assert ("gemini-embedding-001", 3, False) == (gemini.model, gemini.text_bytes, gemini.has_output)


def test_searches() -> None:
    web = [{"type": "web_search"}]
    assert 10 == read("openai_responses", {"input": "x", "tools": web}).web_searches_max
    assert 2 == read("openai_responses", {"input": "x", "tools": web, "max_tool_calls": 2}).web_searches_max
    assert 1 == read("openai_chat", {**MINIMAL["openai_chat"], "web_search_options": {}}).web_searches_max
    assert 1 == read("openai_chat", {**MINIMAL["openai_chat"], "model": "gpt-4o-search-preview"}).web_searches_max
    assert 0 == read("openai_chat", MINIMAL["openai_chat"]).web_searches_max


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("openai_chat", {"messages": "x"}, "messages must be a list"),
    ("openai_chat", {}, "messages must be a list"),
    ("openai_chat", {"messages": ["x"]}, "messages[0] must be an object"),
    ("openai_chat", {"messages": user(5)}, "messages[].content must be a string or a list"),
    ("openai_chat", {"messages": [], "model": 5}, "model must be a string"),
    ("openai_chat", {"messages": [], "stream": "true"}, "stream must be true or false"),
    ("openai_chat", {"messages": [], "stream_options": []}, "stream_options must be an object"),
    ("openai_chat", {"messages": [], "max_tokens": "5"}, "max_tokens must be a whole number"),
    ("openai_chat", {"messages": [], "max_tokens": True}, "max_tokens must be a whole number"),
    ("openai_chat", {"messages": [], "max_completion_tokens": 1.5}, "max_completion_tokens must be a whole number"),
    ("openai_chat", {"messages": [], "n": {}}, "n must be a whole number"),
    ("openai_chat", {"messages": [], "tools": {}}, "tools must be a list"),
    ("openai_chat", {"messages": [], "service_tier": 1}, "service_tier must be a string"),
    ("completions", {"prompt": {}}, "prompt must be a string, a list of strings, or lists of token ids"),
    ("openai_responses", {"input": 5}, "input must be a string or a list"),
    ("openai_responses", {"input": [5]}, "input[0] must be an object"),
    ("openai_responses", {"previous_response_id": 5}, "previous_response_id must be a string"),
    ("openai_embeddings", {"input": None}, "input must be a string, a list of strings, or lists of token ids"),
    ("openai_embeddings", {"input": [None]}, "input must be a string, a list of strings, or lists of token ids"),
    ("anthropic", {"messages": {}}, "messages must be a list"),
    ("anthropic", {"messages": [], "system": 5}, "system must be a string or a list"),
    ("anthropic", {"messages": [], "thinking": {"budget_tokens": "x"}}, "thinking.budget_tokens must be a whole number"),
    ("anthropic", {"messages": [], "tools": [5]}, "tools[0] must be an object"),
    ("gemini", {"contents": "x"}, "contents must be a list"),
    ("gemini", {"contents": [], "generationConfig": 5}, "generationConfig must be an object"),
    (
        "gemini",
        {"contents": [], "generationConfig": {"maxOutputTokens": "x"}},
        "generationConfig.maxOutputTokens must be a whole number",
    ),
    (
        "gemini",
        {"contents": [], "generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}},
        "maxOutputTokens is given twice, as maxOutputTokens and as max_output_tokens: send it once",
    ),
    ("gemini_embed", {"requests": [{}]}, "content must be an object"),
]


@pytest.mark.parametrize(("which", "body", "message"), WRONG)
def test_wrong_types(which: str, body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequestBody) as caught:
        read(which, body)

    assert message == str(caught.value)


TWICE: list[tuple[str, bytes, str]] = [
    ("openai_chat", b'{"model":"a","model":"b","messages":[]}', "model"),
    ("openai_chat", b'{"model":"a","messages":[],"mod\\u0065l":"b"}', "model"),
    ("openai_chat", b'{"messages":[],"max_tokens":1,"max_tokens":9}', "max_tokens"),
    ("openai_chat", b'{"messages":[],"messages":[]}', "messages"),
    ("openai_chat", b'{"messages":[],"stream":false,"stream":true}', "stream"),
    ("openai_chat", b'{"messages":[],"n":1, "n" : 100}', "n"),
    (
        "openai_chat",
        b'{"messages":[],"stream_options":{"include_usage":true,"include_usage":false}}',
        "stream_options.include_usage",
    ),
    ("openai_chat", b'{"messages":[{"content":"\\u0022\\u0022"}],"n":1,"n":100}', "n"),
    ("anthropic", b'{"messages":[],"max_tokens":1,"max_tokens":9}', "max_tokens"),
    ("anthropic", b'{"messages":[],"thinking":{"budget_tokens":1,"budget_tokens":9}}', "thinking.budget_tokens"),
    ("gemini", b'{"contents":[],"generationConfig":{},"generationConfig":{}}', "generationConfig"),
    (
        "gemini",
        b'{"contents":[],"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":9}}',
        "generationConfig.maxOutputTokens",
    ),
    ("openai_responses", b'{"input":"a","input":"b"}', "input"),
    ("openai_embeddings", b'{"input":"a","input":"b"}', "input"),
]


@pytest.mark.parametrize(("which", "body", "key"), TWICE)
def test_governing_keys_given_twice(which: str, body: bytes, key: str) -> None:
    with pytest.raises(BadRequestBody) as caught:
        read(which, body)

    assert f"{key} is given twice: send it once" == str(caught.value)


def test_repeats_that_govern_nothing_pass() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a","x":1,"x":2}],"tools":[{"model":1,"model":2}],"foo":1,"foo":2}'

    assert read("openai_chat", body).model == "m"


def test_a_word_in_other_places_is_no_repeat() -> None:
    body = {
        "model": "model",
        "messages": user('"model"'),
        "tools": [{"function": {"parameters": {"required": ["model"], "model": 1}}}],
    }

    assert read("openai_chat", body).model == "model"


MALFORMED = [
    b"", b"   ", b"{", b"[]", b"null", b'"x"', b"5", b'{"messages":[]', b"\xff\xfe{\x00}\x00", b'{"messages":[]}x',
    b"{'messages':[]}", b'{"messages":[NaN]}', b"\xef\xbb\xbf{}", b'{"a":"\\ud83d","b":NaN}',
    b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":"\\ud83d","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
@pytest.mark.parametrize("which", ["openai_chat", "anthropic", "gemini", "openai_responses", "openai_embeddings"])
def test_malformed(which: str, body: bytes) -> None:
    with pytest.raises(BadRequestBody):
        read(which, body)


def test_half_an_emoji_is_tolerated() -> None:
    """JavaScript clients send them; many servers take them."""
    facts = read("openai_chat", b'{"messages":[{"role":"user","content":"ab\\ud83d"}],"tools":[{"x":"\\udc00"}]}')

    assert facts.text_bytes >= 2 + 3


@pytest.mark.parametrize("odd", [[], {}, 5, None, True])
def test_types_that_are_no_words(odd: object) -> None:
    part = {"type": odd, "source": odd, "input": odd, "image_url": odd, "file": odd, "inlineData": odd, "text": "abc"}

    assert read("anthropic", {"messages": user([part])}).text_bytes >= 3
    assert read("openai_chat", {"messages": user([part])}).text_bytes >= 3
    assert read("openai_responses", {"input": user([part])}).text_bytes >= 3
    assert read("gemini", {"contents": [{"parts": [part]}]}).text_bytes >= 3


def test_deep_but_legal_nesting() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = {"type": "t", "content": [deep]}

    assert read("anthropic", {"messages": user([deep])}).text_bytes >= 401


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6) | st.just("data:image/png,AA"),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["model", "messages", "content", "input", "contents", "parts", "type", "role", "source", "image_url", "url", "file",
             "tools", "max_tokens", "thinking", "budget_tokens", "generationConfig", "system", "prompt", "inlineData", "data",
             "input_audio", "stream_options", "requests", "functionDeclarations", "mediaResolution", "level"]
        ) | st.text(max_size=4),
        inner | st.sampled_from(["image", "document", "base64", "image_url", "input_image", "tool_use"]),
        max_size=5,
    ),
    max_leaves=25,
)  # fmt: skip


@settings(max_examples=3000, deadline=None)
@given(st.sampled_from(sorted(PATHS)), JSON, st.sampled_from(["messages", "input", "contents", "requests", "prompt"]))
def test_any_json_is_read_or_refused(which: str, value: object, key: str) -> None:
    for body in (value, {key: value, "tools": value, "messages": [], "contents": []}, {key: [{"content": value, "parts": value}]}):
        try:
            facts = read(which, json.dumps(body).encode())
        except BadRequestBody:
            continue
        assert facts.text_bytes >= 0
        assert all(media_tokens_max(which.split("_")[0], facts.model, item) >= 0 for item in facts.media)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(PATHS)), st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(which: str, body: bytes) -> None:
    try:
        read(which, body)
    except BadRequestBody:
        pass


@pytest.mark.parametrize("which", ["openai_chat", "openai_responses", "anthropic", "gemini"])
def test_limit_and_model_can_be_changed(which: str) -> None:
    family, path = PATHS[which]
    dialect = endpoint(FAMILIES[family], "POST", path).dialect
    assert dialect is not None
    body = json.dumps(MINIMAL[which]).encode()
    facts = read(which, body)

    new_path, rename = dialect.rename_model(facts, path, "other")
    edits = [dialect.limit_edit(facts, 321), *([rename] if rename else [])]
    family_again, changed = PATHS[which][0], apply(body, edits)
    again = endpoint(FAMILIES[family_again], "POST", new_path).dialect
    assert again is not None
    found = again.read_request(facts.operation, new_path, "", changed)

    assert (321, "other") == (found.output_limit, found.model)
    assert found.text_bytes == facts.text_bytes
