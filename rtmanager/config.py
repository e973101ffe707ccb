"""The configuration: one frozen value, built once from the environment.

Every variable is one row of `VARIABLES`, which is also what `docs/configuration.md` is checked against. All
faults of an environment are reported together; a secret is never part of a message, a log or a repr.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rtmanager.domain.container import Limits, parse_cpus, parse_memory, parse_pids
from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.domain.messages import Stream
from rtmanager.operations.ports import PullPolicy

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LOG_LEVELS = ("debug", "info", "warn", "error")
LOG_FORMATS = ("auto", "json", "text")


class ConfigError(RuntimeManagerError):
    """The environment cannot be used; `faults` has one line for each thing that is wrong with it."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port; an empty host means every interface when listening."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Config:
    """What the service needs to know, parsed and checked. Durations are seconds; see `VARIABLES` for meaning."""

    postgres_dsn: str = field(repr=False)
    redis_addr: Address
    game_state_root: str
    lobby_base_url: str
    http_addr: Address = Address("", 8096)
    postgres_pool_size: int = 16
    redis_password: str = field(default="", repr=False)
    output_stream_maxlen: int = 100_000
    docker_host: str = "unix:///var/run/docker.sock"
    docker_network: str = "galaxy-net"
    game_state_dir_mode: int = 0o750
    game_state_owner_uid: int = 0
    game_state_owner_gid: int = 0
    lobby_timeout_s: float = 2.0
    default_limits: Limits = Limits(cpus=1.0, memory_bytes=512 << 20, pids=512)
    container_stop_timeout_s: int = 30
    container_retention_days: int = 30
    engine_state_mount_path: str = "/var/lib/galaxy-game"
    engine_state_env_name: str = "GAME_STATE_PATH"
    image_pull_policy: PullPolicy = PullPolicy.IF_MISSING
    docker_log_driver: str = "json-file"
    docker_log_options: Mapping[str, str] = field(
        default_factory=lambda: {"max-size": "10m", "max-file": "3"}
    )
    image_pull_timeout_s: float = 600.0
    image_pull_progress_timeout_s: float = 60.0
    max_parallel_operations: int = 32
    inspect_interval_s: float = 30.0
    probe_interval_s: float = 15.0
    probe_timeout_s: float = 2.0
    probe_failures_threshold: int = 3
    reconcile_interval_s: float = 300.0
    cleanup_interval_s: float = 3600.0
    game_lease_ttl_s: int = 60
    log_level: str = "info"
    log_format: str = "auto"
    shutdown_timeout_s: float = 30.0
    otel_service_name: str = "galaxy-rtmanager"
    otel_traces_exporter: str = "none"
    otel_metrics_exporter: str = "none"
    streams: Mapping[Stream, str] = field(
        default_factory=lambda: {
            Stream.START_JOBS: "runtime:start_jobs",
            Stream.STOP_JOBS: "runtime:stop_jobs",
            Stream.JOB_RESULTS: "runtime:job_results",
            Stream.HEALTH_EVENTS: "runtime:health_events",
            Stream.NOTIFICATION_INTENTS: "notification:intents",
            Stream.DEAD_LETTERS: "runtime:dead_letters",
        }
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read `VARIABLES` from `environment`; raises `ConfigError` with all faults at once.

        A variable that is set to nothing counts as not set, as in a compose file with an empty substitution.
        """
        values: dict[str, Any] = {}
        faults = [*_read_all(environment, values), *_unknown(environment)]
        if faults:
            raise ConfigError(faults)
        streams = {stream: values.pop(f"stream_{stream}") for stream in Stream}
        if len(set(streams.values())) < len(streams):
            raise ConfigError([f"the stream names must differ from each other, got {sorted(streams.values())}"])
        limits = Limits(values.pop("default_cpus"), values.pop("default_memory"), values.pop("default_pids"))
        return cls(**values, streams=streams, default_limits=limits)


class Bad(Exception):
    """What a value should have been; the caller adds which variable and which value."""


def _text(text: str) -> str:
    return text


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= 366 * 86400:
        raise Bad("a duration above zero such as 500ms, 2s, 5m or 1h")
    return seconds


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise Bad(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise Bad(f"one of {', '.join(choices)}")
        return text

    return parse


def _address(text: str) -> Address:
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/@]*)):([0-9]{1,5})", text)
    if not match or int(match[3]) > 65535:
        raise Bad("an address host:port such as redis:6379")
    return Address(match[1] or match[2] or "", int(match[3]))


def _remote_address(text: str) -> Address:
    address = _address(text)
    if not address.host or not address.port:
        raise Bad("an address host:port such as redis:6379")
    return address


def _postgres_dsn(text: str) -> str:
    if not re.match(r"postgres(ql)?://", text) and not re.match(r"\s*\w+\s*=", text):
        raise Bad("a DSN such as postgres://rtmanagerservice:…@host:5432/galaxy?search_path=rtmanager")
    return text


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise Bad("a base URL such as http://lobby:8095")
    return text.rstrip("/")


def _docker_host(text: str) -> str:
    if not re.fullmatch(r"(unix:///.+|(tcp|http|https|ssh)://[^\s/]+.*)", text):
        raise Bad("a Docker endpoint such as unix:///var/run/docker.sock or tcp://host:2375")
    return text


def _absolute_path(text: str) -> str:
    if not text.startswith("/") or "\0" in text or ".." in text.split("/") or not text.strip("/"):
        raise Bad("an absolute path below /, without ..")
    return "/" + "/".join(part for part in text.split("/") if part not in ("", "."))


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3,4}", text) or not int(text, 8) & 0o700 == 0o700:
        raise Bad("an octal directory mode that lets its owner read, write and enter, such as 0750")
    return int(text, 8)


def _environment_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise Bad("the name of an environment variable such as GAME_STATE_PATH")
    return text


def _docker_name(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", text):
        raise Bad("a Docker network name: letters, digits, _ . -")
    return text


def _options(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if any(not key.strip() or not equals for key, equals, _ in pairs):
        raise Bad("comma-separated key=value pairs such as max-size=10m,max-file=3")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _exporter(text: str) -> str:
    if text != "none":
        raise Bad("none: no OpenTelemetry exporter is built in")
    return text


def _domain(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser of the domain: its `InvalidValue` already says what is expected."""

    def wrapped(text: str) -> Any:
        try:
            return parse(text)
        except RuntimeManagerError as error:
            raise Bad(str(error).partition("expected ")[2]) from error

    return wrapped


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: where its value goes, how it is read, what it means (for docs)."""

    name: str
    attribute: str
    parse: Callable[[str], Any]
    default: str | None
    meaning: str
    secret: bool = False


#: Every variable that the service reads. A default of None: the variable is required.
VARIABLES: tuple[Variable, ...] = (
    Variable("RTMANAGER_INTERNAL_HTTP_ADDR", "http_addr", _address, ":8096", "where the internal REST API listens"),
    Variable(
        "RTMANAGER_POSTGRES_PRIMARY_DSN", "postgres_dsn", _postgres_dsn, None,
        "PostgreSQL, as a URL or as key=value pairs; `search_path` names the schema (`rtmanager` if it names none)",
        secret=True,
    ),
    Variable(
        "RTMANAGER_POSTGRES_POOL_SIZE", "postgres_pool_size", _whole(4, 500), "16",
        "most connections to PostgreSQL that one instance keeps",
    ),
    Variable("RTMANAGER_REDIS_MASTER_ADDR", "redis_addr", _remote_address, None, "Redis 7 or newer, host:port"),
    Variable("RTMANAGER_REDIS_PASSWORD", "redis_password", _text, "", "the password of Redis", secret=True),
    Variable(
        "RTMANAGER_REDIS_OUTPUT_STREAM_MAXLEN", "output_stream_maxlen", _whole(100, 10**9), "100000",
        "about how many entries each output stream keeps",
    ),
    Variable(
        "RTMANAGER_DOCKER_HOST", "docker_host", _docker_host, "unix:///var/run/docker.sock", "the Docker daemon"
    ),
    Variable(
        "RTMANAGER_DOCKER_NETWORK", "docker_network", _docker_name, "galaxy-net",
        "the network of the engines; it must exist",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_ROOT", "game_state_root", _absolute_path, None,
        "the directory on the Docker host below which each game has its own",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_DIR_MODE", "game_state_dir_mode", _mode, "0750", "mode of a game's directory, octal"
    ),
    Variable(
        "RTMANAGER_GAME_STATE_OWNER_UID", "game_state_owner_uid", _whole(0, 2**31 - 1), "0",
        "owner of a game's directory: the user id the engine runs as",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_OWNER_GID", "game_state_owner_gid", _whole(0, 2**31 - 1), "0",
        "group of a game's directory",
    ),
    Variable(
        "RTMANAGER_LOBBY_INTERNAL_BASE_URL", "lobby_base_url", _http_url, None,
        "the Game Lobby's internal API, asked for diagnosis only",
    ),
    Variable("RTMANAGER_LOBBY_INTERNAL_TIMEOUT", "lobby_timeout_s", _duration, "2s", "how long the Lobby may take"),
    Variable(
        "RTMANAGER_DEFAULT_CPU_QUOTA", "default_cpus", _domain(parse_cpus), "1.0",
        "cores of an engine whose image names no `com.galaxy.cpu_quota`",
    ),
    Variable(
        "RTMANAGER_DEFAULT_MEMORY", "default_memory", _domain(parse_memory), "512m",
        "memory of an engine whose image names no `com.galaxy.memory`; there is no swap beyond it",
    ),
    Variable(
        "RTMANAGER_DEFAULT_PIDS_LIMIT", "default_pids", _domain(parse_pids), "512",
        "processes of an engine whose image names no `com.galaxy.pids_limit`",
    ),
    Variable(
        "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS", "container_stop_timeout_s", _whole(0, 3600), "30",
        "seconds between asking an engine to end and killing it",
    ),
    Variable(
        "RTMANAGER_CONTAINER_RETENTION_DAYS", "container_retention_days", _whole(0, 36500), "30",
        "days after which the container of a stopped game is removed",
    ),
    Variable(
        "RTMANAGER_ENGINE_STATE_MOUNT_PATH", "engine_state_mount_path", _absolute_path, "/var/lib/galaxy-game",
        "where an engine finds its game's directory",
    ),
    Variable(
        "RTMANAGER_ENGINE_STATE_ENV_NAME", "engine_state_env_name", _environment_name, "GAME_STATE_PATH",
        "the variable that tells it, beside `STORAGE_PATH`",
    ),
    Variable(
        "RTMANAGER_IMAGE_PULL_POLICY", "image_pull_policy",
        lambda text: PullPolicy(_one_of(*PullPolicy)(text)), "if_missing",
        "when a registry is asked: `if_missing`, `always` or `never`",
    ),
    Variable(
        "RTMANAGER_IMAGE_PULL_TIMEOUT", "image_pull_timeout_s", _duration, "10m", "how long a pull may take in all"
    ),
    Variable(
        "RTMANAGER_IMAGE_PULL_PROGRESS_TIMEOUT", "image_pull_progress_timeout_s", _duration, "1m",
        "how long a pull may show no progress",
    ),
    Variable("RTMANAGER_DOCKER_LOG_DRIVER", "docker_log_driver", _text, "json-file", "log driver of the engines"),
    Variable(
        "RTMANAGER_DOCKER_LOG_OPTS", "docker_log_options", _options, "max-size=10m,max-file=3",
        "options of that driver",
    ),
    Variable(
        "RTMANAGER_MAX_PARALLEL_OPERATIONS", "max_parallel_operations", _whole(1, 256), "32",
        "how many games one instance works on at once",
    ),
    Variable("RTMANAGER_INSPECT_INTERVAL", "inspect_interval_s", _duration, "30s", "period of the inspector"),
    Variable("RTMANAGER_PROBE_INTERVAL", "probe_interval_s", _duration, "15s", "period of the health probe"),
    Variable("RTMANAGER_PROBE_TIMEOUT", "probe_timeout_s", _duration, "2s", "how long one probe may take"),
    Variable(
        "RTMANAGER_PROBE_FAILURES_THRESHOLD", "probe_failures_threshold", _whole(1, 1000), "3",
        "failed probes in a row before `probe_failed`",
    ),
    Variable("RTMANAGER_RECONCILE_INTERVAL", "reconcile_interval_s", _duration, "5m", "period of the reconciler"),
    Variable("RTMANAGER_CLEANUP_INTERVAL", "cleanup_interval_s", _duration, "1h", "period of the retention"),
    Variable(
        "RTMANAGER_GAME_LEASE_TTL_SECONDS", "game_lease_ttl_s", _whole(5, 86400), "60",
        "seconds that an operation survives without a heartbeat of its instance",
    ),
    Variable(
        "RTMANAGER_LOG_LEVEL", "log_level", _one_of(*LOG_LEVELS), "info", "least level that is logged"
    ),
    Variable(
        "RTMANAGER_LOG_FORMAT", "log_format", _one_of(*LOG_FORMATS), "auto",
        "`json`, `text`, or `auto`: text on a terminal, JSON elsewhere",
    ),
    Variable(
        "RTMANAGER_SHUTDOWN_TIMEOUT", "shutdown_timeout_s", _duration, "30s",
        "how long operations may finish after SIGTERM before they are handed back",
    ),
    Variable("OTEL_SERVICE_NAME", "otel_service_name", _text, "galaxy-rtmanager", "the service's name in its logs"),
    Variable("OTEL_TRACES_EXPORTER", "otel_traces_exporter", _exporter, "none", "must be `none`"),
    Variable("OTEL_METRICS_EXPORTER", "otel_metrics_exporter", _exporter, "none", "must be `none`"),
    *(
        Variable(
            f"RTMANAGER_REDIS_{stream.name}_STREAM", f"stream_{stream}", _text, default,
            f"the stream of {meaning}",
        )
        for stream, default, meaning in (
            (Stream.START_JOBS, "runtime:start_jobs", "start jobs"),
            (Stream.STOP_JOBS, "runtime:stop_jobs", "stop jobs"),
            (Stream.JOB_RESULTS, "runtime:job_results", "job results"),
            (Stream.HEALTH_EVENTS, "runtime:health_events", "health events"),
            (Stream.NOTIFICATION_INTENTS, "notification:intents", "notification intents"),
            (Stream.DEAD_LETTERS, "runtime:dead_letters", "entries that name no game"),
        )
    ),
)


def _read_all(environment: Mapping[str, str], values: dict[str, Any]) -> list[str]:
    faults = []
    for variable in VARIABLES:
        text = environment.get(variable.name, "").strip() or variable.default
        if text is None:
            faults.append(f"{variable.name} is not set: {variable.meaning}")
            continue
        try:
            values[variable.attribute] = variable.parse(text)
        except Bad as error:
            value = "its value (not shown: it may hold a secret)" if variable.secret else repr(text)
            faults.append(f"{variable.name}: {value} is not {error}")
    return faults


def _unknown(environment: Mapping[str, str]) -> list[str]:
    """Names that look like ours and are not: nearly always a typing error that would pass unseen."""
    known = {variable.name for variable in VARIABLES}
    return []
