"""The environment variables of the manager, one row each: name, default, meaning.

The manager reads no others. `docs/configuration.md` is checked against this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rtmanager import failpoints
from rtmanager.config import parsers
from rtmanager.config.dsn import postgres_dsn
from rtmanager.domain.container import parse_cpus, parse_memory, parse_pids
from rtmanager.domain.messages import Stream
from rtmanager.ports.runtime import PullPolicy

LOG_LEVELS = ("debug", "info", "warn", "error")
LOG_FORMATS = ("auto", "json", "text")
PROBE_TARGETS = ("auto", "endpoint", "container_ip")
SWITCH = ("off", "on")
#: System directories of a container; a mount there hides files that the image's programs need.
SYSTEM_DIRECTORIES = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc"),
    *("/proc", "/sys", "/dev", "/run"),
)


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its attribute in `Config`, its parser, and its meaning for the docs."""

    name: str
    attribute: str
    parse: Callable[[str], Any]
    default: str | None
    meaning: str
    secret: bool = False
    #: Whether an empty value counts; any other variable then counts as not set.
    may_be_empty: bool = False


#: Default name of each stream in Redis, and its content.
STREAMS: Mapping[Stream, tuple[str, str]] = {
    Stream.START_JOBS: ("runtime:start_jobs", "start jobs"),
    Stream.STOP_JOBS: ("runtime:stop_jobs", "stop jobs"),
    Stream.JOB_RESULTS: ("runtime:job_results", "job results"),
    Stream.HEALTH_EVENTS: ("runtime:health_events", "health events"),
    Stream.NOTIFICATION_INTENTS: ("notification:intents", "notification intents"),
    Stream.DEAD_LETTERS: ("runtime:dead_letters", "entries that name no game"),
}

#: Every variable that the manager reads. A default of None: the variable is required.
VARIABLES: tuple[Variable, ...] = (
    Variable(
        "RTMANAGER_INTERNAL_HTTP_ADDR",
        "http_addr",
        parsers.address,
        ":8096",
        "where the internal REST API listens",
    ),
    Variable(
        "RTMANAGER_HTTP_HOSTS",
        "http_hosts",
        parsers.host_names,
        "",
        "names with dots by which clients call the REST API, separated by commas; IP addresses and names without dots "
        "are always accepted, any other `Host` is refused",
    ),
    Variable(
        "RTMANAGER_HTTP_TOKENS_DIR",
        "http_tokens_dir",
        parsers.optional_path,
        "",
        "the directory of the REST API's bearer tokens, one file `<role>.<caller>` each, with role `gm`, `admin` or "
        "`read`; read again within a second of a change; without it, every caller is served",
    ),
    Variable(
        "RTMANAGER_POSTGRES_PRIMARY_DSN",
        "postgres_dsn",
        postgres_dsn,
        None,
        "PostgreSQL, as a URL or as key=value pairs; `search_path` names the schema (`rtmanager` if it names none)",
        secret=True,
    ),
    Variable(
        "RTMANAGER_POSTGRES_POOL_SIZE",
        "postgres_pool_size",
        parsers.whole(4, 500),
        "16",
        "most connections to PostgreSQL that one instance keeps",
    ),
    Variable(
        "RTMANAGER_REDIS_MASTER_ADDR",
        "redis_addr",
        parsers.redis_address,
        None,
        "Redis 7 or newer, `host:port` or `redis://host:port`; with TLS `rediss://host:port`",
    ),
    Variable(
        "RTMANAGER_REDIS_USERNAME",
        "redis_username",
        parsers.any_text,
        "",
        "the ACL user of Redis; without one it is `default`",
    ),
    Variable(
        "RTMANAGER_REDIS_PASSWORD",
        "redis_password",
        parsers.any_text,
        "",
        "the password of Redis",
        secret=True,
    ),
    Variable(
        "RTMANAGER_REDIS_TLS_CA",
        "redis_tls_ca",
        parsers.optional(parsers.absolute_path),
        "",
        "with `rediss://`: the certificates of the authorities that Redis's may be signed by, a file in PEM; "
        "without one, the system's",
    ),
    Variable(
        "RTMANAGER_REDIS_TLS_CERT",
        "redis_tls_cert",
        parsers.optional(parsers.absolute_path),
        "",
        "with `rediss://`: our own certificate, a file in PEM, where Redis wants one",
    ),
    Variable(
        "RTMANAGER_REDIS_TLS_KEY",
        "redis_tls_key",
        parsers.optional(parsers.absolute_path),
        "",
        "its key, a file in PEM; without one, it is in the certificate's file",
    ),
    Variable(
        "RTMANAGER_REDIS_OUTPUT_STREAM_MAXLEN",
        "output_stream_maxlen",
        parsers.whole(100, 10**9),
        "100000",
        "about how many entries each output stream keeps",
    ),
    Variable(
        "RTMANAGER_INTENTS_PER_MINUTE",
        "intents_per_minute",
        parsers.whole(0, 10**6),
        "60",
        "notification intents of one type in a minute; above that one summary stands for the rest (0: no limit)",
    ),
    Variable(
        "RTMANAGER_SILENCE_TIMEOUT",
        "silence_timeout_s",
        # Psycopg spends at least 2 s on a connection. A transaction that waits for a silent Redis (half of this) must
        # end before PostgreSQL's limit for idle transactions (10 s).
        parsers.duration_within("2s", "15s"),
        "8s",
        "how long PostgreSQL may be silent before it counts as away, Redis half as long; a statement has 5/8 of it",
    ),
    Variable(
        "RTMANAGER_STARTUP_WAIT",
        "startup_wait_s",
        parsers.duration,
        "1m",
        "how long `serve` waits for PostgreSQL, Redis and Docker to answer before it exits 1",
    ),
    Variable(
        "RTMANAGER_DOCKER_HOST",
        "docker_host",
        parsers.docker_host,
        "unix:///var/run/docker.sock",
        "the Docker daemon, `unix:///path` or `tcp://host[:port]`",
    ),
    Variable(
        "RTMANAGER_DOCKER_TLS_CA",
        "docker_tls_ca",
        parsers.optional_path,
        "",
        "for TLS to a `tcp://` daemon: PEM file with the CA that signed its certificate; without it the system's CAs",
    ),
    Variable(
        "RTMANAGER_DOCKER_TLS_CERT",
        "docker_tls_certificate",
        parsers.optional_path,
        "",
        "PEM file with the client certificate that is shown to the daemon (`--tlsverify` asks for one)",
    ),
    Variable(
        "RTMANAGER_DOCKER_TLS_KEY",
        "docker_tls_key",
        parsers.optional_path,
        "",
        "PEM file with the key of that certificate, without a password",
    ),
    Variable(
        "RTMANAGER_DOCKER_NETWORK",
        "docker_network",
        parsers.docker_name,
        "galaxy-net",
        "the network of the engines; it must exist",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_ROOT",
        "game_state_root",
        parsers.state_root,
        None,
        "the directory on the Docker host below which each game has its own; no directory of the system",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_DIR_MODE",
        "game_state_dir_mode",
        parsers.directory_mode,
        "0750",
        "mode of a game's directory, octal, 0700 to 0777",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_OWNER_UID",
        "game_state_owner_uid",
        parsers.whole(0, 2**31 - 1),
        "0",
        "owner of a game's directory: the user id the engine runs as",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_OWNER_GID",
        "game_state_owner_gid",
        parsers.whole(0, 2**31 - 1),
        "0",
        "group of a game's directory",
    ),
    Variable(
        "RTMANAGER_GAME_STATE_MIN_FREE",
        "game_state_min_free_bytes",
        parsers.free_bytes,
        "1m",
        "free bytes that the state root needs, beside 16 inodes, for a start, a restart or a patch; 0: not checked",
    ),
    Variable(
        "RTMANAGER_LOBBY_INTERNAL_BASE_URL",
        "lobby_base_url",
        parsers.http_url,
        None,
        "the Game Lobby's internal API, asked for diagnosis only",
    ),
    Variable(
        "RTMANAGER_LOBBY_INTERNAL_TIMEOUT",
        "lobby_timeout_s",
        parsers.duration,
        "2s",
        "how long the Lobby may take",
    ),
    Variable(
        "RTMANAGER_DEFAULT_CPU_QUOTA",
        "default_cpus",
        parsers.by_domain(parse_cpus),
        "1.0",
        "cores of an engine whose image names no `com.galaxy.cpu_quota`",
    ),
    Variable(
        "RTMANAGER_DEFAULT_MEMORY",
        "default_memory",
        parsers.by_domain(parse_memory),
        "512m",
        "memory of an engine whose image names no `com.galaxy.memory`; there is no swap beyond it",
    ),
    Variable(
        "RTMANAGER_DEFAULT_PIDS_LIMIT",
        "default_pids",
        parsers.by_domain(parse_pids),
        "512",
        "processes of an engine whose image names no `com.galaxy.pids_limit`",
    ),
    Variable(
        "RTMANAGER_CONTAINER_STOP_TIMEOUT_SECONDS",
        "stop_grace_s",
        parsers.whole(0, 3600),
        "30",
        "grace period of a stop: seconds between SIGTERM and SIGKILL",
    ),
    Variable(
        "RTMANAGER_CONTAINER_RETENTION_DAYS",
        "container_retention_days",
        parsers.whole(0, 36500),
        "30",
        "days after which the container of a stopped game is removed",
    ),
    Variable(
        "RTMANAGER_ENGINE_STATE_MOUNT_PATH",
        "engine_state_mount_path",
        parsers.path_outside(*SYSTEM_DIRECTORIES),
        "/var/lib/galaxy-game",
        f"where an engine finds its game's directory; in none of {', '.join(SYSTEM_DIRECTORIES)}",
    ),
    Variable(
        "RTMANAGER_ENGINE_STATE_ENV_NAME",
        "engine_state_env_name",
        parsers.environment_name,
        "GAME_STATE_PATH",
        "the variable that tells it, beside `STORAGE_PATH`; not one that a system or an interpreter reads (`PATH`, "
        "`HOME`, `HOSTNAME`, `IFS`, `ENV`, `BASH_ENV`, `LD_…`, `PYTHON…`)",
    ),
    Variable(
        "RTMANAGER_IMAGE_PULL_POLICY",
        "image_pull_policy",
        lambda text: PullPolicy(parsers.one_of(*PullPolicy)(text)),
        "if_missing",
        "when a registry is queried: `if_missing`, `always` or `never`",
    ),
    Variable(
        "RTMANAGER_IMAGE_PULL_TIMEOUT",
        "image_pull_timeout_s",
        parsers.duration,
        "10m",
        "how long a pull may take in all",
    ),
    Variable(
        "RTMANAGER_IMAGE_PULL_PROGRESS_TIMEOUT",
        "image_pull_progress_timeout_s",
        parsers.duration,
        "1m",
        "how long a pull may show no progress",
    ),
    Variable(
        "RTMANAGER_PULLS_PER_REGISTRY",
        "pulls_per_registry",
        parsers.whole(1, 100),
        "8",
        "how many images are pulled from one registry at once; others wait, as long as one pull may take at most",
    ),
    Variable(
        "RTMANAGER_IMAGE_ALLOW",
        "image_allow",
        parsers.image_patterns,
        "",
        "patterns `[registry[:port]/]path[:tag]` of the images that may be started, with commas or white space between "
        "them: `*` is one part of a path or any characters of a tag, a last `**` one or more parts; without any, every "
        "image but those of loopback and link-local registries",
    ),
    Variable(
        "RTMANAGER_IMAGE_REQUIRE_DIGEST",
        "image_require_digest",
        lambda text: parsers.one_of(*SWITCH)(text) == "on",
        "off",
        "`on`: only references with a digest are started; a patch needs a tag as well, `name:1.2.3@sha256:…`",
    ),
    Variable(
        "RTMANAGER_FIRST_START_WATCH",
        "first_start_watch_s",
        parsers.duration_within("1ms", "10s"),
        "250ms",
        "how long the process of an image's first container has to live before its start counts as good",
    ),
    Variable(
        "RTMANAGER_DOCKER_LOG_DRIVER",
        "docker_log_driver",
        parsers.any_text,
        "json-file",
        "log driver of the engines",
    ),
    Variable(
        "RTMANAGER_DOCKER_LOG_OPTS",
        "docker_log_options",
        parsers.options,
        "max-size=10m,max-file=3",
        "options of that driver; set to nothing: none. The default is for `json-file` and `local`; other drivers have "
        "none by default",
        may_be_empty=True,
    ),
    Variable(
        "RTMANAGER_MAX_PARALLEL_OPERATIONS",
        "max_parallel_operations",
        parsers.whole(1, 256),
        "32",
        "how many games one instance works on at once",
    ),
    Variable(
        "RTMANAGER_DEFERRAL_LIMIT",
        "deferral_limit_s",
        parsers.duration,
        "15m",
        "for how long an operation is tried again that gets temporary answers of Docker or of a registry; then it ends "
        "with the last one",
    ),
    Variable(
        "RTMANAGER_INSPECT_INTERVAL",
        "inspect_interval_s",
        parsers.period,
        "30s",
        "period of the inspector, 100ms or more",
    ),
    Variable(
        "RTMANAGER_PROBE_INTERVAL",
        "probe_interval_s",
        parsers.period,
        "15s",
        "period of the health probe, 100ms or more",
    ),
    Variable("RTMANAGER_PROBE_TIMEOUT", "probe_timeout_s", parsers.duration, "2s", "how long one probe may take"),
    Variable(
        "RTMANAGER_PROBE_FAILURES_THRESHOLD",
        "probe_failures_threshold",
        parsers.whole(1, 1000),
        "3",
        "failed probes in a row before `probe_failed`",
    ),
    Variable(
        "RTMANAGER_PROBE_TARGET",
        "probe_target",
        parsers.one_of(*PROBE_TARGETS),
        "auto",
        "how engines are reached: `endpoint` by name inside the Docker network, `container_ip` from the Docker host, "
        "`auto`: by name if this process runs in a container on that network",
    ),
    Variable(
        "RTMANAGER_RECONCILE_INTERVAL",
        "reconcile_interval_s",
        parsers.period,
        "5m",
        "period of the reconciler, 100ms or more",
    ),
    Variable(
        "RTMANAGER_CLEANUP_INTERVAL",
        "cleanup_interval_s",
        parsers.period,
        "1h",
        "period of the retention, 100ms or more",
    ),
    Variable(
        "RTMANAGER_OPERATIONS_RETENTION",
        "operations_retention_s",
        parsers.retention,
        "720h",
        "how long a finished operation is kept in the queue's table, and longer while its entry may come again "
        "(0: for ever)",
    ),
    Variable(
        "RTMANAGER_DEAD_LETTERS_RETENTION",
        "dead_letters_retention_s",
        parsers.retention,
        "720h",
        "how long an entry that names no game is remembered, and longer while it may come again (0: for ever)",
    ),
    Variable(
        "RTMANAGER_INPUT_STREAMS_RETENTION",
        "input_streams_retention_s",
        parsers.retention,
        "168h",
        "how long the input streams keep an entry that every consumer group has acknowledged (0: for ever)",
    ),
    Variable(
        "RTMANAGER_OPERATION_LOG_RETENTION",
        "operation_log_retention_s",
        parsers.retention,
        "0",
        "how long a row of the operation log is kept (0: for ever)",
    ),
    Variable(
        "RTMANAGER_IMAGE_RETENTION",
        "image_retention_s",
        parsers.retention,
        "0",
        "how long an image that the manager pulled is kept on the Docker host when no record names it (0: for ever)",
    ),
    Variable(
        "RTMANAGER_OUTAGE_RESTART",
        "outage_restart",
        lambda text: parsers.one_of(*SWITCH)(text) == "on",
        "on",
        "`on`: a game that ended with Docker or the host is started again",
    ),
    Variable(
        "RTMANAGER_OUTAGE_RESTARTS_AT_ONCE",
        "outage_restarts_at_once",
        parsers.whole(1, 1000),
        "4",
        "games that are being started at a time after an outage, by all instances together",
    ),
    Variable(
        "RTMANAGER_CRASH_RESTART",
        "crash_restart",
        lambda text: parsers.one_of(*SWITCH)(text) == "on",
        "off",
        "`on`: a game whose engine crashed is restarted",
    ),
    Variable(
        "RTMANAGER_PROBE_RESTART",
        "probe_restart",
        lambda text: parsers.one_of(*SWITCH)(text) == "on",
        "off",
        "`on`: a game whose probes fail is restarted, within the budget of `RTMANAGER_CRASH_RESTART_BUDGET`",
    ),
    Variable(
        "RTMANAGER_CRASH_RESTART_BUDGET",
        "crash_restart_budget",
        parsers.whole(1, 1000),
        "3",
        "restarts of one game within the window; after that it stays stopped",
    ),
    Variable(
        "RTMANAGER_CRASH_RESTART_WINDOW",
        "crash_restart_window_s",
        parsers.duration,
        "10m",
        "the window in which restarts count",
    ),
    Variable(
        "RTMANAGER_CRASH_RESTART_FIRST_PAUSE",
        "crash_restart_first_pause_s",
        parsers.duration,
        "5s",
        "pause before the first restart; it doubles with each within the window",
    ),
    Variable(
        "RTMANAGER_CRASH_RESTART_LONGEST_PAUSE",
        "crash_restart_longest_pause_s",
        parsers.duration,
        "5m",
        "the longest of these pauses",
    ),
    Variable(
        "RTMANAGER_GAME_LEASE_TTL_SECONDS",
        "game_lease_ttl_s",
        parsers.whole(5, 86400),
        "60",
        "seconds that an operation survives without a heartbeat of its instance",
    ),
    Variable(
        "RTMANAGER_FAILPOINTS",
        "failpoints",
        parsers.by_domain(failpoints.checked),
        "",
        "for tests of crashes only: what is to happen at which point (docs/reliability.md)",
    ),
    Variable("RTMANAGER_LOG_LEVEL", "log_level", parsers.one_of(*LOG_LEVELS), "info", "least level that is logged"),
    Variable(
        "RTMANAGER_LOG_FORMAT",
        "log_format",
        parsers.one_of(*LOG_FORMATS),
        "auto",
        "`json`, `text`, or `auto`: text on a terminal, JSON elsewhere",
    ),
    Variable(
        "RTMANAGER_SHUTDOWN_TIMEOUT",
        "shutdown_timeout_s",
        parsers.duration,
        "30s",
        "how long operations may finish after SIGTERM before they are handed back",
    ),
    Variable(
        "OTEL_SERVICE_NAME",
        "otel_service_name",
        parsers.any_text,
        "galaxy-rtmanager",
        "the service's name in its logs",
    ),
    Variable("OTEL_TRACES_EXPORTER", "otel_traces_exporter", parsers.exporter, "none", "must be `none`"),
    Variable("OTEL_METRICS_EXPORTER", "otel_metrics_exporter", parsers.exporter, "none", "must be `none`"),
    *(
        Variable(
            f"RTMANAGER_REDIS_{stream.name}_STREAM",
            f"stream_{stream}",
            parsers.stream_name,
            default,
            f"the stream of {meaning}",
        )
        for stream, (default, meaning) in STREAMS.items()
    ),
)
