"""Verdicts, statuses and policies are their names: compared, printed, and written as JSON."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from geolookup import Policy, Status, Verdict
from geolookup.v1 import geolookup_pb2 as v1

KINDS = (Status, Verdict, Policy)
MEMBERS = [member for kind in KINDS for member in kind]


@pytest.mark.parametrize("member", MEMBERS, ids=repr)
def test_member_equals_its_name(member: Any) -> None:
    assert member == member.name
    assert str(member) == f"{member}" == f"{member:s}" == member.name
    assert json.dumps({"it": member}) == f'{{"it": "{member.name}"}}'
    assert {member: 1} == {member.name: 1}
    assert type(member)[member.name] is type(member)(member.name) is member


@pytest.mark.parametrize("member", MEMBERS, ids=repr)
def test_member_keeps_its_identity_in_copies(member: Status | Verdict | Policy) -> None:
    assert pickle.loads(pickle.dumps(member)) is member  # noqa: S301 - our own bytes
    assert copy.deepcopy(member) is member


@pytest.mark.parametrize("member", MEMBERS, ids=repr)
def test_number_is_that_of_the_proto(member: Status | Verdict | Policy) -> None:
    kind = type(member)
    assert int(member) == member.number == getattr(v1, f"{kind.__name__.upper()}_{member.name}")
    assert kind.numbered(member.number) is member


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_number_is_refused(kind: type[Status | Verdict | Policy]) -> None:
    for number in (0, len(kind) + 1, -1):
        with pytest.raises(ValueError, match=f"{kind.__name__}: no member has the number"):
            kind.numbered(number)
    with pytest.raises(ValueError, match="not a valid"):
        kind(1)  # type: ignore[call-arg]  # as Enum's metaclass takes it: a number is no name


@pytest.mark.parametrize("member", MEMBERS, ids=repr)
def test_truth_value_is_an_error(member: Status | Verdict | Policy) -> None:
    with pytest.raises(TypeError, match=f"compare it: .* is {type(member).__name__}.{member.name}"):
        bool(member)
    with pytest.raises(TypeError, match="neither true nor false"):
        _ = 1 if member else 0
