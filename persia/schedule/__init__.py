"""The core: the scheduling policy that drives both the simulator and the real runtime.

Standard library only; no clock, no input or output, no threads, no randomness.  README.md beside this file tells the
life of a batch.
"""
