"""The `metasrv` program: parse, load the configuration, run one node, end with its exit code.

Parsing, printing and signals only; composes the node with its listeners. What a running node prints is left out when
standard output does not take it. Exit codes: `metasrv.model.errors.FatalError`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvloop

from metasrv.admin.service import AdminService, HealthService
from metasrv.backup.schedule import keep_backups
from metasrv.cli.gateway_process import run_gateway
from metasrv.cli.offline import check, downgrade_check, print_text, recover
from metasrv.cli.options import (
    CHECK,
    CONFIG_CHECK,
    CONFIG_SHOW,
    DOWNGRADE_CHECK,
    GATEWAY,
    RECOVER,
    Options,
    parse_options,
)
from metasrv.cli.terminal import drop_output
from metasrv.config.groups import group_number
from metasrv.config.load import LoadedConfig, check_config_file, load_config
from metasrv.config.model import Config
from metasrv.config.text import banner_text, show_config_text, start_warnings, version_text
from metasrv.gateway.remote_gateways import serve_remote_gateways
from metasrv.grpc_api.service import GrpcService
from metasrv.model.errors import ConfigError, FatalError
from metasrv.node.context import NodeContext
from metasrv.node.health import check_liveness
from metasrv.node.joining import leave_cluster
from metasrv.node.meta_node import MetaNode, ServiceFactory
from metasrv.node.rebuilding import set_aside
from metasrv.node.reloads import ConfigSource
from metasrv.process.build_info import build_commit
from metasrv.process.clock import SystemClock
from metasrv.process.logs import RunningLogs, start_logging
from metasrv.process.open_files import open_files_warning, raise_open_files
from metasrv.process.private_files import keep_new_files_private
from metasrv.process.service_manager import ServiceManager
from metasrv.process.standard_streams import STANDARD_ERROR, open_missing_streams, say
from metasrv.profiling.memory import load_profiler
from metasrv.raft.forwarding import Forwarding
from metasrv.raft.peers.one_shot import one_shot_transport
from metasrv.tracing.request_ids import current_request_id

logger = logging.getLogger("metasrv.server")

SHOW_CONFIG = "show-config"
SWITCH_INTERVAL_SECONDS = 0.001
"""A helper thread that computes (an export, a snapshot's check) gives the interpreter back to the event loop this soon.
Python's default of five milliseconds, paid several times per write, would show in every write's latency."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    # A node forks only to start another program, py-spy. gRPC's fork handlers sometimes crash that child before
    # the program begins, and the profile would have to be taken by the in-process sampler.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    open_missing_streams()
    try:
        options = _options(sys.argv[1:] if arguments is None else list(arguments))
        if options.command == CONFIG_CHECK and options.check_file is not None:
            return _check(options.check_file)
        if options.command == CHECK and options.check_directory is not None:
            return check(options.check_directory)
        if options.command == DOWNGRADE_CHECK and options.downgrade_to is not None:
            return downgrade_check(_raft_dir(options), options.downgrade_to)
        if options.cmd and options.cmd != SHOW_CONFIG and options.command != CONFIG_SHOW:
            return _print_command(options)
        loaded = load_config(options.config_file, os.environ, options.flags)
        if options.cmd or options.command == CONFIG_SHOW:
            _warn(loaded)
            print_text(show_config_text(loaded))
            return 0
        if options.command == RECOVER:
            _warn(loaded)
            return recover(loaded.config, options.lost_majority)
        if options.command == GATEWAY:
            _warn(loaded)
            return run_gateway(loaded, options)
        if loaded.config.gateway_nodes:
            raise ConfigError(["`gateway_nodes` is set, so this is no node's configuration: run `metasrv gateway`"])
        if loaded.config.raft_config.is_leave_request:
            _warn(loaded)
            uvloop.run(_leave(loaded.config))
            return 0
        return _run(loaded, options)
    except ConfigError as error:
        for problem in error.problems:
            say(f"metasrv: {problem}", STANDARD_ERROR)
        return error.exit_code
    except FatalError as error:
        say(f"metasrv: {error}", STANDARD_ERROR)
        return error.exit_code


def _options(arguments: list[str]) -> Options:
    try:
        return parse_options(arguments, os.environ)
    except BrokenPipeError:
        drop_output()  # the reader of the help (`head`, perhaps) has enough
        raise SystemExit(0) from None
    except OSError as error:
        drop_output()
        raise FatalError(f"standard output cannot be written: {error.strerror}") from error


def _check(path: str) -> int:
    problems = check_config_file(path)
    for problem in problems:
        say(f"{path}: {problem}", STANDARD_ERROR)
    if not problems:
        print_text(f"{path}: ok")
    return ConfigError.exit_code if problems else 0


def _print_command(options: Options) -> int:
    """`--cmd` with anything but `show-config`: needs no configuration that a node could run with."""
    if options.cmd != "ver":  # upstream exits 0 here too (docs/contract/admin-api.md section 3.2)
        say(f"metasrv: unknown --cmd {options.cmd!r}; it is `ver` or `show-config`", STANDARD_ERROR)
        return 0
    try:
        config = load_config(options.config_file, os.environ, options.flags).config
    except ConfigError:
        config = Config()  # its defaults are what a version is about; `config check` names the mistakes
    print_text(version_text(config))
    return 0


def _raft_dir(options: Options) -> str:
    """The directory that a flag names, which needs no configuration, or that of the configuration. Raises ConfigError."""
    given = options.flags.get("raft_config.raft_dir")
    if isinstance(given, str) and given:
        return given
    return load_config(options.config_file, os.environ, options.flags).config.raft_config.raft_dir


def _warn(loaded: LoadedConfig) -> None:
    for warning in loaded.warnings:
        say(f"metasrv: warning: {warning}", STANDARD_ERROR)


async def _leave(config: Config) -> None:
    """Ask a member to remove a node; opens no store and no listener."""
    raft = config.raft_config
    transport = one_shot_transport(raft, SystemClock())
    try:
        await leave_cluster(Forwarding(transport), raft.leave_id or 0, raft.leave_via)
    finally:
        await transport.close()
    say(f"node {raft.leave_id} left the cluster")


def _run(loaded: LoadedConfig, options: Options) -> int:
    """Run the node. Signals that mean nothing to it do nothing, from here to the end of the process."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    keep_new_files_private()
    return uvloop.run(_serve(loaded, options, _client_service(loaded.config)))


def _client_service(config: Config) -> ServiceFactory:
    """What serves clients: this process, or gateways, which are forked by a process that must be there before threads."""
    if config.grpc_gateways == "0":
        return GrpcService
    # A node that starts no gateways loads nothing of what starts them.
    from metasrv.gateway.service import GatewayService, gateway_count
    from metasrv.gateway.spawner import fork_spawner

    if not gateway_count(config.grpc_gateways):
        return GrpcService
    control = fork_spawner()
    return lambda context: GatewayService(context, control)


async def _serve(loaded: LoadedConfig, options: Options, client_service: ServiceFactory) -> int:
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    config = loaded.config
    load_profiler()
    logs = start_logging(config.log, config.secret_values(), allowed_group=group_number(config.file_group))
    node_id = config.raft_config.id
    logs.describe(lambda: {"node": node_id})
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, _on_hangup, logs, None)
    manager = ServiceManager.from_environment(os.environ)
    watchdogs: list[asyncio.Task[None]] = []
    try:
        open_files = open_files_warning(raise_open_files())
        for sentence in [*loaded.warnings, *start_warnings(config), *([open_files] if open_files else [])]:
            logger.warning("%s", sentence)
        if options.rebuild:
            await set_aside(config.raft_config, SystemClock())
        probes: list[ServiceFactory] = [HealthService] if config.health_api_address else []
        factories: list[ServiceFactory] = [*probes, AdminService, client_service]
        source = ConfigSource(options.config_file, lambda: _read_again(options, logs))
        commit = build_commit(os.environ)
        node = MetaNode(
            config,
            commit,
            factories,
            begin_cluster=options.begin_cluster,
            source=source,
            works=[keep_backups, serve_remote_gateways],
            log=logs,
        )
        loop.add_signal_handler(signal.SIGHUP, _on_hangup, logs, node)

        def on_listening(context: NodeContext) -> None:
            term = context.watch.term
            logs.describe(lambda: {"node": node_id, "term": term(), "request_id": current_request_id()})
            say(banner_text(config, context.listeners))
            manager.status("waiting for the cluster")
            watchdogs.append(asyncio.create_task(_keep_watchdog(manager, context), name="watchdog"))

        def on_started(_context: NodeContext) -> None:
            logger.info("Databend Metasrv started")
            say("Databend Metasrv started")
            manager.ready(f"node {config.raft_config.id} serves")

        node.listening, node.started = on_listening, on_started
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _on_signal, node, manager, number)
        code = await node.run()
        logger.info("Databend Metasrv shutdown")
        say("Databend Metasrv shutdown")
        return code
    except FatalError as error:
        logger.critical("%s", error)
        raise
    finally:
        for watchdog in watchdogs:
            watchdog.cancel()
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        logs.stop()


async def _keep_watchdog(manager: ServiceManager, context: NodeContext) -> None:
    await manager.keep_watchdog(lambda: all(check.passed for check in check_liveness(context)))


def _read_again(options: Options, logs: RunningLogs) -> Config:
    """The configuration as it is now, with the same variables and flags; its secrets stay out of the log."""
    config = load_config(options.config_file, os.environ, options.flags).config
    logs.hide(config.secret_values())
    return config


def _on_hangup(logs: RunningLogs, node: MetaNode | None) -> None:
    """SIGHUP: log files were renamed, certificates or secrets replaced, or a terminal closed; the node goes on."""
    logs.reopen()
    logger.info("SIGHUP: the log files are opened anew, certificates and secrets are loaded anew")
    if node is not None:
        node.reload()


def _on_signal(node: MetaNode, manager: ServiceManager, number: signal.Signals) -> None:
    """The first signal begins an orderly stop; a second one ends the process at once."""
    if node.stopping():
        say("metasrv: received a second termination signal; ending at once", STANDARD_ERROR)
        os._exit(128 + number)
    logger.info("Received termination signal.")
    manager.stopping("handing over and closing")
    node.request_stop()


if __name__ == "__main__":
    sys.exit(main())
