"""The manager's dependencies, built from the configuration, with a check for each.

Start-up, readiness and `python -m rtmanager check` use the same checks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from rtmanager.adapters.docker import DockerRuntime
from rtmanager.adapters.docker.events import DockerEvents
from rtmanager.adapters.docker.survey import has_log_driver
from rtmanager.adapters.docker.tls import TlsFiles
from rtmanager.adapters.docker.versions import Agreement
from rtmanager.adapters.postgres.daemon import PostgresDaemons
from rtmanager.adapters.postgres.database import Database
from rtmanager.adapters.postgres.records import PostgresRecords
from rtmanager.adapters.postgres.server import ask as ask_postgres
from rtmanager.adapters.postgres.server import examine as examine_postgres
from rtmanager.adapters.probing import EngineProbes
from rtmanager.adapters.redis_access import Tls
from rtmanager.adapters.redis_streams import RedisStreams
from rtmanager.adapters.state_directories import HostStateDirectories
from rtmanager.adapters.token_files import TokenFiles
from rtmanager.config.parsers import Address
from rtmanager.config.settings import Config
from rtmanager.domain.daemon import Match
from rtmanager.domain.errors import DependencyError, FinalAnswer, RuntimeManagerError, TemporaryAnswer, Unavailable
from rtmanager.domain.game import is_game_id
from rtmanager.domain.log_options import unbounded
from rtmanager.domain.record import Status
from rtmanager.operations.one_daemon import GuardedRuntime, OneDaemon, OtherDaemon, stable

#: Games of each status whose directories are checked under a state root that was not seen before.
KEPT_GAMES = 8


class NetworkMissing(RuntimeManagerError):
    """Docker has no network of this name."""

    def __init__(self, network: str) -> None:
        super().__init__(f"the Docker network {network!r} does not exist, and this service never creates it")
        self.remedy = f"docker network create {network}"


class NetworkUnknown(RuntimeManagerError):
    """Docker cannot report whether the network exists."""

    def __init__(self, network: str, cause: DependencyError) -> None:
        super().__init__(f"whether the Docker network {network!r} exists is unknown: {cause}")
        self.remedy = cause.remedy


class LogDriverMissing(RuntimeManagerError):
    """Docker has no such log driver; without this check each start would fail with it, after 15 s."""

    def __init__(self, name: str, drivers: Iterable[str]) -> None:
        super().__init__(f"Docker has no log driver {name!r}; it has {', '.join(sorted(drivers))}")
        self.remedy = (
            "name one of these in RTMANAGER_DOCKER_LOG_DRIVER, or install and enable its plugin (docker plugin)"
        )


class NotTried(RuntimeManagerError):
    """A check could not be carried out, which is no failure; `remedy` is how to make it possible."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Check:
    """A check of a dependency; `run` returns a short description or raises `RuntimeManagerError`."""

    name: str
    #: The system that it is about; the checks of one system run in their order.
    system: str
    run: Callable[[], str]
    remedy: str
    #: A shorter form of `run` for readiness, which repeats it.
    still: Callable[[], str] | None = None
    #: The checks that must succeed first.
    needs: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The adapters of one manager; none connects before it is used."""

    database: Database
    streams: RedisStreams
    #: The daemon that answers, whichever it is; operations on games use the next two.
    docker: DockerRuntime
    #: The daemon on record.
    guarded_docker: GuardedRuntime
    #: The same over connections of its own, so that closing them ends the watch.
    watched_docker: GuardedRuntime
    docker_events: DockerEvents
    probes: EngineProbes
    state_directories: HostStateDirectories
    daemons: PostgresDaemons
    one_daemon: OneDaemon
    pool_size: int
    network: str
    state_root: str
    log_driver: str
    log_options: Mapping[str, str]
    #: Where the REST API listens, and its tokens; None: every caller is served.
    http_addr: Address
    tokens: TokenFiles | None
    #: Warnings of the last check of each dependency, which do not prevent a start.
    warnings: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, logger: logging.Logger) -> Dependencies:
        """Build all adapters, without a connection."""
        tls = TlsFiles(config.docker_tls_ca, config.docker_tls_certificate, config.docker_tls_key)
        agreement = Agreement()
        database = Database(
            config.postgres_dsn, max_connections=config.postgres_pool_size, silence_s=config.silence_timeout_s
        )
        records = PostgresRecords(database)
        docker = DockerRuntime(
            config.docker_host,
            tls=tls,
            pulls_per_registry=config.pulls_per_registry,
            pull_total_s=config.image_pull_timeout_s,
            pull_no_progress_s=config.image_pull_progress_timeout_s,
            first_start_watch_s=config.first_start_watch_s,
            agreement=agreement,
            logger=logger,
        )
        watched_docker = DockerRuntime(config.docker_host, tls=tls, agreement=agreement, logger=logger)
        daemons = PostgresDaemons(database)
        one_daemon = OneDaemon(daemons, config.docker_network, logger)
        return cls(
            database=database,
            streams=RedisStreams(
                config.redis_addr.host,
                config.redis_addr.port,
                username=config.redis_username,
                password=config.redis_password,
                tls=_redis_tls(config),
                names=config.streams,
                output_maxlen=config.output_stream_maxlen,
                silence_s=config.silence_timeout_s,
            ),
            docker=docker,
            guarded_docker=GuardedRuntime(docker, one_daemon, logger),
            watched_docker=GuardedRuntime(watched_docker, one_daemon, logger),
            docker_events=DockerEvents(config.docker_host, tls=tls, agreement=agreement),
            probes=EngineProbes(),
            state_directories=HostStateDirectories(
                config.game_state_root,
                config.game_state_dir_mode,
                config.game_state_owner_uid,
                config.game_state_owner_gid,
                min_free_bytes=config.game_state_min_free_bytes,
                kept_games=lambda: _kept_games(records),
            ),
            daemons=daemons,
            one_daemon=one_daemon,
            pool_size=config.postgres_pool_size,
            network=config.docker_network,
            state_root=config.game_state_root,
            log_driver=config.docker_log_driver,
            log_options=config.docker_log_options,
            http_addr=config.http_addr,
            tokens=TokenFiles(config.http_tokens_dir, logger) if config.http_tokens_dir else None,
        )

    def close(self) -> None:
        """Close every connection."""
        self.streams.close()
        self.docker_events.interrupt()
        self.watched_docker.close()
        self.probes.close()
        self.docker.close()
        self.database.close()

    def checks(self) -> Sequence[Check]:
        """Return the checks in the order in which start-up runs them."""
        return (
            Check(
                "postgres",
                "PostgreSQL",
                self._check_postgres,
                "is it running, and are host, port, role and password of RTMANAGER_POSTGRES_PRIMARY_DSN right?",
                lambda: ask_postgres(self.database),
            ),
            Check(
                "redis",
                "Redis",
                self._check_redis,
                "is it running, and is RTMANAGER_REDIS_MASTER_ADDR right? Its log says more",
                self._ping_redis,
            ),
            Check("docker", "Docker", self.docker.ping, "read the log of the Docker daemon"),
            Check("network", "Docker", self._check_network, "read the log of the Docker daemon"),
            Check(
                "log driver", "Docker", self._check_log_driver, "read the log of the Docker daemon", needs=("docker",)
            ),
            Check(
                "state root",
                "file system",
                self._check_state_root,
                f"look at the file system of {self.state_root}: df, mount, dmesg",
            ),
            Check("access", "tokens", self._check_access, "see RTMANAGER_HTTP_TOKENS_DIR"),
        )

    def daemon_check(self) -> Check:
        """Return the check that the daemon is the one on record, for `check` and for readiness."""
        remedy, needs = "read the log of the Docker daemon", ("postgres", "docker")
        return Check("daemon", "Docker", self._check_daemon, remedy, self._check_daemon_again, needs=needs)

    def _check_postgres(self) -> str:
        description, self.warnings["postgres"] = examine_postgres(self.database, self.pool_size)
        return description

    def _check_redis(self) -> str:
        description = self._ping_redis()
        self.warnings["redis"] = self.streams.warnings()
        return description

    def _ping_redis(self) -> str:
        return f"Redis {self.streams.ping() or 'of an unknown version'}"

    def _check_network(self) -> str:
        try:
            exists = self.docker.network_exists(self.network)
        except DependencyError as error:
            raise NetworkUnknown(self.network, error) from error
        if not exists:
            raise NetworkMissing(self.network)
        return self.network

    def _check_log_driver(self) -> str:
        warnings = self.warnings["log driver"] = []
        if unbounded(self.log_driver, self.log_options):
            warnings.append(
                "the logs of engines grow without a limit, unless daemon.json has log-opts; remedy: max-size=10m in "
                "RTMANAGER_DOCKER_LOG_OPTS"
            )
        try:
            drivers = self.docker.log_drivers()
        except (TemporaryAnswer, FinalAnswer) as error:
            warnings.append(f"whether Docker has the log driver {self.log_driver} is unknown: {error}")
        else:
            if not has_log_driver(self.log_driver, drivers):
                raise LogDriverMissing(self.log_driver, drivers)
        # Option names only: their values may be secrets.
        return " ".join([self.log_driver, *([f"with {', '.join(self.log_options)}"] if self.log_options else [])])

    def _check_daemon(self) -> str:
        recorded = self.daemons.recorded_before_migrations()
        seen = stable(self.docker, recorded.network if recorded else self.network)
        if recorded is None:
            return f"{seen}; none is on record, a first start records it"
        if recorded.compare(seen) is not Match.SAME:
            raise OtherDaemon(recorded, seen)
        return str(seen)

    def _check_daemon_again(self) -> str:
        """Confirm the daemon; other checks report one that does not answer."""
        try:
            self.daemons.require_deployment(self.one_daemon.deployment)
            self.guarded_docker.confirm()
        except OtherDaemon:
            raise
        except Unavailable as error:
            return str(error)
        return "on record"

    def _check_state_root(self) -> str:
        self.state_directories.check_root()
        if warning := self.state_directories.warning():
            self.warnings["state root"] = [
                f"{warning}; remedy: `python -m rtmanager check` tries it, and says what to do"
            ]
        return self.state_root

    def _check_access(self) -> str:
        """Check the tokens of the REST API; warn where it has none and others than this host reach it."""
        if self.tokens is not None:
            description, self.warnings["access"] = self.tokens.check()
            return description
        warnings = self.warnings["access"] = []
        if not is_loopback(self.http_addr.host):
            warnings.append(
                f"whoever reaches {self.http_addr} may start and remove games, since there are no tokens; a game is "
                "recognised by its container's address alone, and not behind a published port or a proxy; remedy: "
                "RTMANAGER_HTTP_TOKENS_DIR, or 127.0.0.1 in RTMANAGER_INTERNAL_HTTP_ADDR"
            )
        return "no tokens, every caller is served"


def is_loopback(host: str) -> bool:
    """Return whether only this host reaches a listener at `host`. Any name but `localhost` may be another address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _kept_games(records: PostgresRecords) -> Sequence[str]:
    """Return some games that have a container, and so must have a directory. Raises `DependencyError`."""
    pages = (records.page(status=status, after=None, limit=KEPT_GAMES) for status in (Status.RUNNING, Status.STOPPED))
    return [record.game_id for page in pages for record in page if is_game_id(record.game_id)]


def _redis_tls(config: Config) -> Tls | None:
    if not config.redis_addr.tls:
        return None
    return Tls(config.redis_tls_ca, config.redis_tls_cert, config.redis_tls_key)
