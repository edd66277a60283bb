"""`metasrv gateway`: composes a gateway on a machine without a node; logs, signals, probes.

Runs on the process's event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import uvloop

from metasrv.admin.gateway_page import gateway_listener
from metasrv.cli.options import Options
from metasrv.config.groups import group_number
from metasrv.config.load import LoadedConfig, load_config
from metasrv.config.model import Config
from metasrv.gateway.remote_process import RemoteGateway
from metasrv.model.errors import ConfigError
from metasrv.model.types import Endpoint
from metasrv.node.reloads import merged
from metasrv.process.build_info import build_commit
from metasrv.process.logs import RunningLogs, start_logging
from metasrv.process.open_files import open_files_warning, raise_open_files
from metasrv.process.operating_system import show_thread_name
from metasrv.process.private_files import keep_new_files_private
from metasrv.process.service_manager import ServiceManager
from metasrv.process.standard_streams import STANDARD_ERROR, say
from metasrv.process.unused_memory import give_back_unused_memory
from metasrv.raft.peers.security import PeerSecurity
from metasrv.tracing.request_ids import current_request_id

logger = logging.getLogger("metasrv.gateway")

SWITCH_INTERVAL_SECONDS = 0.001
"""As in the node: a helper thread that computes gives the interpreter back to the event loop this soon."""
GRACE_MS = 1_000
"""For calls under way at a stop."""


def run_gateway(loaded: LoadedConfig, options: Options) -> int:
    """Run it to its end; returns the exit code. Raises FatalError."""
    if not loaded.config.gateway_nodes:
        raise ConfigError(["`metasrv gateway` needs the raft address of at least one node: --node HOST:PORT"])
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    keep_new_files_private()
    return uvloop.run(_serve(loaded, options))


async def _serve(loaded: LoadedConfig, options: Options) -> int:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    config = loaded.config
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="helper", initializer=show_thread_name))
    logs = start_logging(config.log, config.secret_values(), allowed_group=group_number(config.file_group))
    manager = ServiceManager.from_environment(os.environ)
    try:
        open_files = open_files_warning(raise_open_files())
        for sentence in [*loaded.warnings, *([open_files] if open_files else [])]:
            logger.warning("%s", sentence)
        gateway = RemoteGateway(config, build_commit(os.environ), PeerSecurity.from_config(config.raft_config))
        logs.describe(lambda: {"gateway": config.grpc_api_address, "request_id": current_request_id()})
        loop.add_signal_handler(signal.SIGHUP, _on_hangup, logs, gateway, options)

        def on_ready(endpoint: Endpoint) -> None:
            say(f"metasrv gateway serves clients at {endpoint}")
            manager.ready("the gateway serves")

        gateway.ready = on_ready
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, gateway, manager, number)
        await _run(config, gateway)
        say("metasrv gateway shutdown")
        return 0
    except Exception as error:
        logger.critical("%s", error)
        raise
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        logs.stop()


async def _run(config: Config, gateway: RemoteGateway) -> None:
    listener = None
    if config.health_api_address:
        listener = gateway_listener(
            config.health_api_address, gateway.metrics, lambda: gateway.standing, lambda: gateway.watchers
        )
        await listener.start()
    memory = asyncio.create_task(give_back_unused_memory(), name="unused-memory")
    try:
        await gateway.run(GRACE_MS)
    finally:
        memory.cancel()
        if listener is not None:
            await listener.stop(GRACE_MS)


def _on_hangup(logs: RunningLogs, gateway: RemoteGateway, options: Options) -> None:
    """Log files were renamed, certificates or secrets replaced: all are loaded anew; a link that holds goes on."""
    logs.reopen()
    try:
        read = load_config(options.config_file, os.environ, options.flags).config
        logs.hide(read.secret_values())
        security = PeerSecurity.from_config(read.raft_config)
    except ConfigError as error:
        logger.error("SIGHUP: the configuration cannot be used, and what was there before stays in force: %s", error)
        return
    gateway.dialler.security = security
    gateway.config, _waiting = merged(gateway.config, read)
    if gateway.context is not None:
        gateway.context.config = gateway.config
        gateway.context.reloader.ask()
    logger.info("SIGHUP: the log files are opened anew, certificates and secrets are loaded anew")


def _on_signal(gateway: RemoteGateway, manager: ServiceManager, number: signal.Signals) -> None:
    """The first signal begins an orderly stop; a second one ends the process at once."""
    if gateway.request_stop():
        say("metasrv: received a second termination signal; ending at once", STANDARD_ERROR)
        os._exit(128 + number)
    logger.info("Received termination signal.")
    manager.stopping("closing")
