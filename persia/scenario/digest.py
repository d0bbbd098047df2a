"""The content hash of a scenario."""

from __future__ import annotations

import hashlib
import json

from persia.scenario.scenario import Scenario


def scenario_digest(scenario: Scenario) -> str:
    """Return the SHA-256 (hex) of the scenario's canonical JSON: every field, defaults included, keys sorted, base units."""
    data = scenario.model_dump(mode="json", by_alias=True)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
