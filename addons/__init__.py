"""Everything that touches the wire: the mitmproxy addon, its steps, the provider dialects, the console around it."""
