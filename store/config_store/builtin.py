"""The providers that are known without being configured: name → the registry entry that describes their paths."""

from types import MappingProxyType

BUILTIN_PROVIDERS = MappingProxyType({"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"})
"""Callers that know of more (the gateway's provider registry) hand in their own table."""
