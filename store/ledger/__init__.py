"""Caps, holds and what was charged: two-phase transfers on a durable store. `ledger.py` is the front door."""
