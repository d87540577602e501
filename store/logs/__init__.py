"""logs.db: one row per call, written in batches behind the road, and the questions asked of it."""
