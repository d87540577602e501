"""mitmproxy from the inside: everything that leans on its private parts, each in one place with a test.

Policy comes in as callables and dataclasses; nothing here knows of virtual keys, budgets or providers.
"""
