"""Persia: plan, simulate and run the training of recommendation models with up to 100 trillion parameters."""

__version__ = "0.1.0"
