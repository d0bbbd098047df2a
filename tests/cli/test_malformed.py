"""Every malformed scenario exits with 2, file and line, without a traceback, in under a second."""

from __future__ import annotations
