"""Client library of the meta service: `AsyncClient`, the blocking `Client`, and the `Transaction` builder."""

from metasrv.client.answers import ClientInfo, WatchEvent
from metasrv.client.asynchronous import AsyncClient
from metasrv.client.blocking import Client
from metasrv.client.caller import CallObserver
from metasrv.client.outcomes import OtherClusterError
from metasrv.client.transaction import Transaction

__all__ = ["AsyncClient", "CallObserver", "Client", "ClientInfo", "OtherClusterError", "Transaction", "WatchEvent"]
