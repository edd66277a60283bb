"""The `metasrv` program: parse, load the configuration, run one node, end with its exit code.

Parsing and printing only; composes the node with its listeners. Exit codes: `metasrv.model.errors.FatalError`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from metasrv.admin.service import AdminService
from metasrv.cli.options import CONFIG_CHECK, CONFIG_SHOW, Options, parse_options
from metasrv.config.load import LoadedConfig, check_config_file, load_config
from metasrv.config.model import Config
from metasrv.config.text import banner_text, show_config_text, start_warnings, version_text
from metasrv.grpc_api.service import GrpcService
from metasrv.model.errors import ConfigError, FatalError
from metasrv.node.context import NodeContext
from metasrv.node.health import check_liveness
from metasrv.node.joining import leave_cluster
from metasrv.node.meta_node import MetaNode, ServiceFactory
from metasrv.node.rebuilding import set_aside
from metasrv.process.build_info import build_commit
from metasrv.process.clock import SystemClock
from metasrv.process.logs import start_logging
from metasrv.process.open_files import open_files_warning, raise_open_files
from metasrv.process.service_manager import ServiceManager
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.peers.one_shot import one_shot_transport

logger = logging.getLogger("metasrv.server")

SWITCH_INTERVAL_SECONDS = 0.001
"""A helper thread that computes (an export, a snapshot's check) gives the interpreter back to the event loop this soon.
Python's default of five milliseconds, paid several times per write, would show in every write's latency."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    # A node forks only to start another program, py-spy. gRPC's fork handlers sometimes crash that child before
    # the program begins, and the profile would have to be taken by the in-process sampler.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    try:
        options = parse_options(sys.argv[1:] if arguments is None else list(arguments), os.environ)
        if options.command == CONFIG_CHECK and options.check_file is not None:
            return _check(options.check_file)
        loaded = load_config(options.config_file, os.environ, options.flags)
        if options.cmd or options.command == CONFIG_SHOW:
            return _print_command(options, loaded)
        if loaded.config.raft_config.is_leave_request:
            uvloop.run(_leave(loaded.config))
            return 0
        return uvloop.run(_serve(loaded.config, options.begin_cluster, options.rebuild))
    except ConfigError as error:
        for problem in error.problems:
            print(f"metasrv: {problem}", file=sys.stderr)
        return error.exit_code
    except FatalError as error:
        print(f"metasrv: {error}", file=sys.stderr)
        return error.exit_code


def _check(path: str) -> int:
    problems = check_config_file(path)
    for problem in problems:
        print(f"{path}: {problem}", file=sys.stderr)
    if not problems:
        print(f"{path}: ok")
    return ConfigError.exit_code if problems else 0


def _print_command(options: Options, loaded: LoadedConfig) -> int:
    if options.command == CONFIG_SHOW or options.cmd == "show-config":
        try:
            print(show_config_text(loaded), flush=True)
        except BrokenPipeError:
            # The reader (`head`, perhaps) has closed the pipe. Nothing more may be written, not even at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    elif options.cmd == "ver":
        print(version_text(loaded.config))
    else:  # upstream exits 0 here too (docs/contract/admin-api.md section 3.2)
        print(f"metasrv: unknown --cmd {options.cmd!r}; it is `ver` or `show-config`", file=sys.stderr)
    return 0


async def _leave(config: Config) -> None:
    """Ask a member to remove a node; opens no store and no listener."""
    raft = config.raft_config
    transport = one_shot_transport(raft, SystemClock())
    try:
        await leave_cluster(Forwarding(transport), raft.leave_id or 0, raft.leave_via)
    finally:
        await transport.close()
    print(f"node {raft.leave_id} left the cluster")


async def _serve(config: Config, begin_cluster: bool, rebuild: bool) -> int:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    logs = start_logging(config.log, config.secret_values())
    manager = ServiceManager.from_environment(os.environ)
    watchdogs: list[asyncio.Task[None]] = []
    try:
        open_files = open_files_warning(raise_open_files())
        for sentence in [*start_warnings(config), *([open_files] if open_files else [])]:
            logger.warning("%s", sentence)
        if rebuild:
            await set_aside(config.raft_config, SystemClock())
        factories: list[ServiceFactory] = [AdminService, GrpcService]
        node = MetaNode(config, build_commit(os.environ), factories, begin_cluster=begin_cluster)

        def on_listening(context: NodeContext) -> None:
            print(banner_text(config, context.listeners), flush=True)
            manager.status("waiting for the cluster")
            watchdogs.append(asyncio.create_task(_keep_watchdog(manager, context), name="watchdog"))

        def on_started(_context: NodeContext) -> None:
            logger.info("Databend Metasrv started")
            print("Databend Metasrv started", flush=True)
            manager.ready(f"node {config.raft_config.id} serves")

        node.listening, node.started = on_listening, on_started
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, node, manager, number)
        code = await node.run()
        logger.info("Databend Metasrv shutdown")
        print("Databend Metasrv shutdown", flush=True)
        return code
    except FatalError as error:
        logger.critical("%s", error)
        raise
    finally:
        for watchdog in watchdogs:
            watchdog.cancel()
        logs.stop()


async def _keep_watchdog(manager: ServiceManager, context: NodeContext) -> None:
    await manager.keep_watchdog(lambda: all(check.passed for check in check_liveness(context)))


def _on_signal(node: MetaNode, manager: ServiceManager, number: signal.Signals) -> None:
    """The first signal begins an orderly stop; a second one ends the process at once."""
    if node.stopping():
        print("metasrv: received a second termination signal; ending at once", file=sys.stderr, flush=True)
        os._exit(128 + number)
    logger.info("Received termination signal.")
    manager.stopping("handing over and closing")
    node.request_stop()


if __name__ == "__main__":
    sys.exit(main())
