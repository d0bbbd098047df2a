"""Calibration: which points to measure, and the constants that explain what was measured there."""
