"""What was refused, counted and logged without flooding the log."""

from __future__ import annotations

import logging
import threading
import time

_LOG_EVERY_S = 30.0
_logger = logging.getLogger(__name__)


class Refusals:
    """Counts what was refused, of each kind of fault, and logs each kind at once and then at most every 30 s."""

    def __init__(self, where: str) -> None:
        self.counts: dict[str, int] = {}
        self._where = where
        self._lock = threading.Lock()
        self._logged_s: dict[str, float] = {}

    def add(self, fault: str, sentence: str) -> None:
        """Count one refusal; may be called from any thread."""
        now_s = time.monotonic()
        with self._lock:
            count = self.counts[fault] = self.counts.get(fault, 0) + 1
            quiet = now_s - self._logged_s.get(fault, -_LOG_EVERY_S) < _LOG_EVERY_S
            if not quiet:
                self._logged_s[fault] = now_s
        if not quiet:
            _logger.warning("%s refused %s (%d of this kind so far)", self._where, sentence, count)
