"""The command line: `serve`, `check`, `migrate`, `accept-daemon`.

Exit codes: 0 success, 1 a dependency or a check failed, 2 the configuration or the command is wrong. 128 plus the
number of a signal (130 SIGINT, 143 SIGTERM): the signal ended the process at once (`__main__.py`). For `serve` that is
so only before its dependencies have answered, and for a second SIGINT. A missing reader of output or log changes no
exit code; see `standard_streams.py`.
"""

from __future__ import annotations

import argparse
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence

import psycopg

from rtmanager import __version__, failpoints
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.migrate import migrate
from rtmanager.bootstrap.app import Runtime
from rtmanager.bootstrap.dependencies import Dependencies
from rtmanager.bootstrap.startup import StartupFailed
from rtmanager.checking import Result, as_json, as_lines, passed, results
from rtmanager.config.settings import Config, ConfigError, unknown_names
from rtmanager.domain.errors import RuntimeManagerError, with_remedy
from rtmanager.logs import adopt_libraries, adopt_process, flush, make_logger
from rtmanager.resources import NotEnough, files_needed, lacking, require
from rtmanager.standard_streams import say, usable_streams
from rtmanager.threads import Thread
from rtmanager.trials import Trials

OK, FAILED, MISUSED = 0, 1, 2

#: Signals that `serve` ends on in order: from a supervisor, a terminal (its keys, its end), a limit of processor time.
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU})
#: Signals of programs that rotate logs; by default they end a process.
IGNORED = frozenset({signal.SIGUSR1, signal.SIGUSR2})


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run a command; return the exit code."""
    usable_streams()
    options = _parser().parse_args(arguments)
    command = options.command
    environment = os.environ if environment is None else environment
    try:
        config = Config.from_environment(environment)
    except ConfigError as error:
        title = f"rtmanager: the environment has {len(error.faults)} fault(s); see docs/configuration.md"
        say("\n".join([title, *(f"  {fault}" for fault in error.faults)]), sys.stderr)
        if command == "check" and options.json:
            say(as_json([Result("settings", False, fault, "see docs/configuration.md") for fault in error.faults]))
        return MISUSED
    if command == "serve":
        # Before the first thread, which is the log's. Blocked and awaited, not handled: a handler runs only when the
        # main thread runs, and the kernel may deliver the signal to another one.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING | IGNORED)
    logger = make_logger(level=config.log_level, style=config.log_format, service=config.otel_service_name)
    adopt_libraries(logger)
    for name in unknown_names(environment):
        logger.warning("unknown variable in the environment, is it a typing error?", extra={"variable": name})
    try:
        match command:
            case "serve":
                return serve(config, logger)
            case "check":
                return check(config, logger, image_ref=options.image, machine=options.json)
            case "accept-daemon":
                return accept_daemon(config, logger, new_deployment=options.new_deployment)
        return apply_migrations(config, logger)
    except Exception as error:
        if lack := lacking(error):
            logger.error("the command failed", extra={"command": command, "error": with_remedy(lack)})
        else:  # a defect: one line of the log, like every other error
            logger.exception("the command failed by a defect", extra={"command": command})
        return FAILED
    finally:
        flush(logger)


def serve(config: Config, logger: logging.Logger) -> int:
    """Serve until a signal of `ENDING`; a second SIGINT, from an impatient terminal, ends the process at once.

    The signals that it waits for must be blocked.
    """
    # `nohup` ignores SIGHUP, a shell without job control SIGQUIT; `sigwait` would receive them all the same.
    unwanted = {each for each in (signal.SIGHUP, signal.SIGQUIT) if signal.getsignal(each) is signal.SIG_IGN}
    if failpoints.arm(config.failpoints):
        logger.warning("failpoints are armed: this process is meant to fail", extra={"failpoints": config.failpoints})
    runtime = Runtime(config, logger)
    adopt_process(logger, runtime.thread_failed)
    received: queue.SimpleQueue[int] = queue.SimpleQueue()
    begun = threading.Event()

    def wait_for_signal() -> None:
        while (number := signal.sigwait((ENDING | IGNORED) - unwanted)) in IGNORED:
            logger.info("signal received, and ignored", extra={"signal": signal.Signals(number).name})
        if not begun.is_set():  # nothing needs an orderly stop yet, and a start may wait long for a dependency
            logger.info("signal received, the start is given up", extra={"signal": signal.Signals(number).name})
            flush(logger)
            os._exit(128 + number)
        received.put(number)

    Thread(wait_for_signal, "rtm-signals", lasting=True).start()
    try:
        runtime.start(begun.set)
    except StartupFailed as error:
        logger.error("cannot start", extra={"error": str(error)})
        return FAILED
    logger.info("signal received", extra={"signal": signal.Signals(received.get()).name})
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    runtime.stop()
    return OK


def check(config: Config, logger: logging.Logger, *, image_ref: str = "", machine: bool = False) -> int:
    """Check every dependency and try what a start does; print a line each, or JSON.

    The trial container is made from `image_ref`, or from any image on the Docker host.
    """
    found: list[Result] = []
    for each in _checked(config, logger, image_ref):
        found.append(each)
        if not machine:
            say(as_lines(each))
    if machine:
        say(as_json(found))
    return OK if passed(found) else FAILED


def _checked(config: Config, logger: logging.Logger, image_ref: str) -> Iterator[Result]:
    try:
        require(files_needed(config.postgres_pool_size, config.max_parallel_operations))
    except NotEnough as error:  # other checks would not be reliable
        yield Result("process", False, str(error), error.remedy or "")
        return
    parts = Dependencies.of(config, logger)
    checks = [*parts.checks(), parts.daemon_check(), *Trials(config, parts, image_ref).checks()]
    try:
        for each in results(checks, parts.warnings, logger):
            if each.name == "postgres" and each.ok:  # the check of the state root reads the records
                parts.database.open()
            yield each
    finally:
        parts.close()


def apply_migrations(config: Config, logger: logging.Logger) -> int:
    """Migrate the schema and print the applied migrations."""
    database = Database(
        config.postgres_dsn, max_connections=config.postgres_pool_size, silence_s=config.silence_timeout_s
    )
    try:
        applied = migrate(database, logger)
    except (RuntimeManagerError, psycopg.Error) as error:
        logger.error("cannot migrate", extra={"error": with_remedy(error)})
        return FAILED
    say(f"applied: {', '.join(applied)}" if applied else "nothing to apply, the schema is up to date")
    return OK


def accept_daemon(config: Config, logger: logging.Logger, *, new_deployment: bool = False) -> int:
    """Replace the daemon on record by the one that answers; print both, and the effect on games."""
    parts = Dependencies.of(config, logger)
    try:
        migrate(parts.database, logger)
        parts.database.open()
        before, now = parts.daemons.recorded(), parts.one_daemon.identity(parts.docker)
        parts.daemons.accept(now, new_deployment=new_deployment)
        deployment = parts.daemons.deployment_id()
    except (RuntimeManagerError, psycopg.Error) as error:
        logger.error("cannot accept the daemon", extra={"error": with_remedy(error)})
        return FAILED
    finally:
        parts.close()
    say(f"on record before: {before or 'no daemon'}")
    say(f"on record now:    {now}, network {now.network} {now.network_id[:12]}, deployment {deployment}")
    say("Games that are recorded as running and have no container there are recorded as removed by the next pass.")
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rtmanager", description="The Runtime Manager. Configured by the environment alone."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve until SIGTERM or SIGINT")
    checking = commands.add_parser("check", help="ask each dependency, try what a start does; exit 1 if one fails")
    checking.add_argument("--json", action="store_true", help="one JSON object in place of lines")
    checking.add_argument("--image", default="", metavar="REF", help="the image to try; any on the Docker host if none")
    commands.add_parser("migrate", help="bring the database schema up to date")
    accept = commands.add_parser(
        "accept-daemon", help="put the Docker daemon that answers on record; stop every manager before"
    )
    accept.add_argument(
        "--new-deployment",
        action="store_true",
        help="for a copied database: give it an id of its own, so that it leaves the original's containers alone",
    )
    return parser
