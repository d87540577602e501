"""The same small call in each dialect, for tests that send bytes by hand."""

from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """How one dialect asks: path behind the provider's prefix, body, host, and whose error shape comes back."""

    name: str
    prefix: str
    path: str
    host: str
    dialect: str
    stream_path: str

    def body(self, text: str = "hi", *, limit: int | None = 16, stream: bool = False, **fields: Any) -> Json:
        """A body with `limit` as the output limit; `fields` go on top."""
        if self.name == "gemini":
            made: Json = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            return made | ({"generationConfig": {"maxOutputTokens": limit}} if limit is not None else {}) | fields
        made = {"model": self.model}
        if self.name == "responses":
            made |= {"input": text} | ({"max_output_tokens": limit} if limit is not None else {})
        else:
            made |= {"messages": [{"role": "user", "content": text}]} | ({"max_tokens": limit} if limit is not None else {})
        return made | ({"stream": True} if stream else {}) | fields

    @property
    def model(self) -> str:
        return {"anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash"}.get(self.name, "gpt-4o-mini")

    @property
    def target(self) -> str:
        """The path on the gateway's base URLs."""
        return self.prefix + self.path

    @property
    def stream_target(self) -> str:
        return self.prefix + self.stream_path


_GEMINI = "/v1beta/models/gemini-2.5-flash"
CHAT = Shape("chat", "/openai", "/v1/chat/completions", "api.openai.com", "openai", "/v1/chat/completions")
RESPONSES = Shape("responses", "/openai", "/v1/responses", "api.openai.com", "openai", "/v1/responses")
ANTHROPIC = Shape("anthropic", "/anthropic", "/v1/messages", "api.anthropic.com", "anthropic", "/v1/messages")
GEMINI = Shape(
    "gemini",
    "/genai",
    f"{_GEMINI}:generateContent",
    "generativelanguage.googleapis.com",
    "gemini",
    f"{_GEMINI}:streamGenerateContent?alt=sse",
)
SHAPES = (CHAT, RESPONSES, ANTHROPIC, GEMINI)
EACH_DIALECT = (CHAT, ANTHROPIC, GEMINI)
