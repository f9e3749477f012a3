"""Decision records in wire form: made of counts, when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from geolookup.answer.decision_record import to_mapping
from geolookup.v1 import geolookup_pb2 as v1

if TYPE_CHECKING:
    from geolookup.answer.claims import Policy, Status
    from geolookup.answer.dataset import Dataset
    from geolookup.answer.decision_record import DecisionRecord


def record_bytes(
    dataset: Dataset,
    region_set: str,
    policy: Policy,
    *,
    statuses: Mapping[Status, int],
    inside: int,
    outside: int,
    undetermined: int,
) -> bytes:
    """Return the field `record` of a `ClassifyRosterResponse`, serialised with its tag.

    It may be appended to the serialised response as it is. The arguments are as
    in `Dataset.record`, and so are the errors.
    """
    record = dataset.record(
        region_set,
        policy,
        statuses=statuses,
        inside=inside,
        outside=outside,
        undetermined=undetermined,
    )
    return v1.ClassifyRosterResponse(record=record_message(record)).SerializeToString()


def record_message(record: DecisionRecord) -> v1.DecisionRecord:
    """Return a record, which has no reference yet, as a message."""
    return v1.DecisionRecord(**to_mapping(record))  # which has the names of the JSON form
