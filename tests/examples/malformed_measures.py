"""Files of measures that neither of the examples takes."""

from __future__ import annotations

import json

REFERENCE = "order 17/2026"


def measure(mode: str = "deny_inside", **others: str) -> dict[str, str]:
    """Return a measure that is valid, but for what is given."""
    times = {"start": "2026-01-01T00:00:00Z", "expiry": "2099-01-01T00:00:00Z"}
    return {"reference": REFERENCE, "region_set": "CN", "mode": mode} | times | others


_EXPECTED = 'expected {"measures": [...]}'
_MALFORMED = [
    ('{"measures": 1}', _EXPECTED),
    ("", _EXPECTED),
    ("[]", _EXPECTED),
    ('{"measure": []}', _EXPECTED),
    ('{"measures": {}, "more": 1}', _EXPECTED),
    ([1], "measure 1: expected an object"),
    ([measure(), measure(region="CN")], "measure 2: region: not known"),
    *(
        (
            [{key: measure()[key] for key in measure() if key != missing}],
            f"measure 1: {missing}: missing",
        )
        for missing in measure()
    ),
    ([measure(reference="")], "measure 1: reference: not valid"),
    ([measure(reference="a\nb")], "measure 1: reference: not valid"),
    ([measure(reference="a" * 257)], "measure 1: reference: not valid"),
    ([measure(region_set="cn")], "measure 1: region_set: not valid"),
    ([measure("deny")], "measure 1: mode: not valid"),
    ([measure(start="2026-01-01")], "measure 1: start: not valid"),
    ([measure(expiry="2099-02-30T00:00:00Z")], "measure 1: expiry: not valid"),
    ([measure(expiry="2026-01-01T00:00:00+00:00")], "measure 1: expiry: not valid"),
    ([measure(expiry="2026-01-01T00:00:00Z")], "measure 1: expiry: not after start"),
    ([measure(policy="unanimous")], "measure 1: policy: not valid"),
    ([measure(when_unavailable="open")], "measure 1: when_unavailable: not valid"),
]

MALFORMED = [
    (text if isinstance(text, str) else json.dumps({"measures": text}), problem)
    for text, problem in _MALFORMED
]
"""The texts of files, and what is wrong with each."""
