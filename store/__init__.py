"""Everything that is kept: configuration, ledger, prices, logs. Knows nothing of mitmproxy or the wire."""
