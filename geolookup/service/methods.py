"""The rpcs of the clients' listener: the one table of their names and numbers."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

GEOLOOKUP: Final = "geolookup.v1.GeoLookupService"
HEALTH: Final = "grpc.health.v1.Health"
REFLECTION: Final = "grpc.reflection.v1.ServerReflection"
REFLECTION_V1ALPHA: Final = "grpc.reflection.v1alpha.ServerReflection"
"""An older name of the same service, with the same messages on the wire."""
ENVOY_AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"


class Method(IntEnum):
    """An rpc. Its number is its index in the counters.

    Attributes:
        service: the full name of its service.
        rpc: its name in the service.
        label: its name in settings, metrics and logs: `rpc`, but for Envoy's Check, which
            has its service's name before it.
    """

    LOOKUP = 0, GEOLOOKUP, "Lookup"
    CLASSIFY_ROSTER = 1, GEOLOOKUP, "ClassifyRoster"
    STREAM_ROSTERS = 2, GEOLOOKUP, "StreamRosters"
    EXPLAIN = 3, GEOLOOKUP, "Explain"
    LIST_REGION_SETS = 4, GEOLOOKUP, "ListRegionSets"
    GET_DATASET = 5, GEOLOOKUP, "GetDataset"
    CHECK = 6, HEALTH, "Check"
    WATCH = 7, HEALTH, "Watch"
    SERVER_REFLECTION_INFO = 8, REFLECTION, "ServerReflectionInfo"
    AUTHORIZATION_CHECK = 9, ENVOY_AUTHORIZATION, "Check", "Authorization.Check"

    service: str
    rpc: str
    label: str

    def __new__(cls, number: int, service: str, rpc: str, label: str = "") -> Method:
        """Make a member from its row."""
        member = int.__new__(cls, number)
        member._value_ = number
        member.service, member.rpc, member.label = service, rpc, label or rpc
        return member

    @property
    def path(self) -> str:
        """The path of its HTTP/2 requests."""
        return f"/{self.service}/{self.rpc}"

    @property
    def paths(self) -> tuple[str, ...]:
        """All paths by which it is called, `path` first."""
        if self is Method.SERVER_REFLECTION_INFO:
            return self.path, f"/{REFLECTION_V1ALPHA}/{self.rpc}"
        return (self.path,)
