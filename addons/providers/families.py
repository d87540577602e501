"""The providers that are known: their public hosts, where their API lives, how the key rides, what they understand."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, eq=False)
class ProviderFamily:
    """One provider as a kind of server: the facts that do not depend on anybody's configuration. There is one object of each."""

    name: str
    hosts: tuple[str, ...] = ()
    """Public hosts, exact; one that begins with a dot stands for every host below it."""
    host_patterns: tuple[str, ...] = ()
    """Regular expressions that must match a whole host, where a region or a resource stands in the middle."""
    base_url: str = ""
    """Public https address with the path under which the API lives; empty where it differs for each customer."""
    auth: str = "bearer"
    """How the key rides: `bearer`, `x-api-key`, `x-goog-api-key`, `api-key`; `none` where servers ask for none by default."""
    website: bool = False
    """A whole website lives on the host: what is not the API is free."""
    asks_usage: bool = False
    """Understands `stream_options.include_usage`."""
    error_dialect: str = "openai"
    """The shape of errors: `openai`, `anthropic`, `gemini` or `bedrock`."""
    protocols: tuple[str, ...] = ("openai",)
    """Which endpoints it has: `openai`, `anthropic`, `gemini`, and `embeddings` or `responses` inside `openai`."""
    limit_field: str = "max_tokens"
    """The output limit of its chat completions."""
    api_prefixes: tuple[str, ...] = ()
    """On a website: the paths that are the API, where what is unknown stays unknown."""
    openai_prefix: str = ""
    """Where a server of another protocol offers OpenAI's: what takes the place of `/v1`."""
    anthropic_prefix: str = ""
    """Where a server of another protocol offers Anthropic's: what stands before `/v1/messages`."""
    prices_of: str = ""
    """Another family's name, when this one's models are that provider's own."""

    @property
    def base_path(self) -> str:
        """The path of `base_url`, without a slash at the end: `/openai/v1`, or empty."""
        rest = self.base_url.split("://", 1)[-1]
        return "/" + rest.split("/", 1)[1].rstrip("/") if "/" in rest else ""


def _openai_like(name: str, *hosts: str, base_url: str = "", asks_usage: bool = True, **more: object) -> ProviderFamily:
    return ProviderFamily(name, hosts, base_url=base_url, asks_usage=asks_usage, **more)  # type: ignore[arg-type]


_ALL = (
    ProviderFamily(
        "openai",
        tuple(f"{region}api.openai.com" for region in ("", "us.", "eu.", "ae.", "au.", "in.", "jp.")),
        base_url="https://api.openai.com/v1",
        asks_usage=True,
        limit_field="max_completion_tokens",
    ),
    ProviderFamily(
        "chatgpt",
        ("chatgpt.com",),
        base_url="https://chatgpt.com",
        website=True,
        api_prefixes=("/backend-api/codex/",),
        prices_of="openai",
    ),
    ProviderFamily(
        "anthropic",
        ("api.anthropic.com",),
        base_url="https://api.anthropic.com",
        auth="x-api-key",
        error_dialect="anthropic",
        protocols=("anthropic",),
    ),
    ProviderFamily(
        "gemini",
        ("generativelanguage.googleapis.com", "generativelanguage.mtls.googleapis.com", "cloudcode-pa.googleapis.com"),
        base_url="https://generativelanguage.googleapis.com",
        auth="x-goog-api-key",
        asks_usage=True,
        error_dialect="gemini",
        protocols=("gemini", "openai"),
        openai_prefix="/v1beta/openai",
    ),
    _openai_like("groq", "api.groq.com", base_url="https://api.groq.com/openai/v1", asks_usage=False,
                 limit_field="max_completion_tokens"),
    _openai_like("mistral", "api.mistral.ai", "codestral.mistral.ai", base_url="https://api.mistral.ai/v1",
                 asks_usage=False),
    _openai_like("deepseek", "api.deepseek.com", base_url="https://api.deepseek.com",
                 protocols=("openai", "anthropic"), anthropic_prefix="/anthropic"),
    _openai_like("xai", "api.x.ai", "us-east-1.api.x.ai", "eu-west-1.api.x.ai", base_url="https://api.x.ai/v1",
                 protocols=("openai", "anthropic")),
    _openai_like("openrouter", "openrouter.ai", base_url="https://openrouter.ai/api/v1", website=True,
                 api_prefixes=("/api/",), protocols=("openai", "anthropic")),
    _openai_like("together", "api.together.xyz", "api.together.ai", "us-api.together.ai", "ca-api.together.ai",
                 base_url="https://api.together.xyz/v1"),
    _openai_like("fireworks", "api.fireworks.ai", base_url="https://api.fireworks.ai/inference/v1",
                 protocols=("openai", "anthropic")),
    _openai_like("perplexity", "api.perplexity.ai", base_url="https://api.perplexity.ai", asks_usage=False),
    _openai_like("cerebras", "api.cerebras.ai", base_url="https://api.cerebras.ai/v1",
                 limit_field="max_completion_tokens"),
    _openai_like("ollama", base_url="http://127.0.0.1:11434", auth="none"),
    _openai_like("vllm", auth="none"),
    _openai_like("sgl", auth="none"),
    _openai_like("llamacpp", auth="none"),
    _openai_like("lmstudio", auth="none"),
    ProviderFamily(
        "azure",
        (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com"),
        auth="api-key",
        protocols=(),
        limit_field="max_completion_tokens",
    ),
    ProviderFamily(
        "vertex",
        ("aiplatform.googleapis.com", "aiplatform.mtls.googleapis.com"),
        host_patterns=(
            r"[a-z0-9-]+-aiplatform(?:\.mtls)?\.googleapis\.com",
            r"aiplatform\.[a-z]+\.rep(?:\.mtls)?\.googleapis\.com",
        ),
        base_url="https://aiplatform.googleapis.com",
        error_dialect="gemini",
        protocols=(),
    ),
    ProviderFamily(
        "bedrock",
        host_patterns=(
            r"bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)",
            r"bedrock-mantle\.[a-z0-9-]+\.api\.aws",
            r"[a-z0-9.-]+\.bedrock-runtime(?:-fips)?\.[a-z0-9-]+\.vpce\.amazonaws\.com",
            r"aws-external-anthropic\.[a-z0-9-]+\.api\.aws",
        ),
        error_dialect="bedrock",
        protocols=(),
    ),
    ProviderFamily("cohere", ("api.cohere.com", "api.cohere.ai"), base_url="https://api.cohere.com", protocols=()),
)  # fmt: skip

FAMILIES: Mapping[str, ProviderFamily] = MappingProxyType({family.name: family for family in _ALL})
