"""Validation of predictions against real runs: the cases, and how far apart two worlds are."""
