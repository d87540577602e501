"""Providers, virtual keys, teams and customers: read, changed, kept, and handed out as immutable snapshots."""
