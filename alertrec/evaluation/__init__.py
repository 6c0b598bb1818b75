"""Judging a model on what it did not see, with intervals: who is judged, the metrics, how far to trust them."""
