"""Clients of the service, with the verbs and results of a `geolookup.Dataset`."""

from geolookup.client.aio import AsyncClient
from geolookup.client.coalescing import Coalescing
from geolookup.client.retry import Retry
from geolookup.client.sync import Client
from geolookup.client.tls import CredentialsError, tls_credentials

__all__ = ["AsyncClient", "Client", "Coalescing", "CredentialsError", "Retry", "tls_credentials"]
