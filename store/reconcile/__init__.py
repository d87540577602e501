"""A provider's own usage export beside the ledger: what agrees, what differs, and why as far as the books can tell."""
