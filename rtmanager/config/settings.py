"""The configuration: one frozen value, built once from the environment.

`variables.py` has the table of variables. All faults of an environment are reported together. A secret is never part of
a message, a log or a repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rtmanager.config import parsers, secret_file
from rtmanager.config.parsers import Address, InvalidSetting, RedisAddress
from rtmanager.config.variables import STREAMS, VARIABLES
from rtmanager.domain import log_options
from rtmanager.domain.container import Limits
from rtmanager.domain.errors import RuntimeManagerError
from rtmanager.domain.image_policy import ImagePattern
from rtmanager.domain.messages import Stream
from rtmanager.ports.runtime import PullPolicy


class ConfigError(RuntimeManagerError):
    """The environment is invalid; `faults` has one line for each error."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Config:
    """The parsed and checked configuration; durations in seconds. `variables.py` has the meaning of each."""

    postgres_dsn: str = field(repr=False)
    redis_addr: RedisAddress
    game_state_root: str
    lobby_base_url: str
    http_addr: Address = field(default_factory=lambda: Address("", 8096))
    http_hosts: frozenset[str] = frozenset()
    http_tokens_dir: str = ""
    postgres_pool_size: int = 16
    redis_username: str = ""
    redis_password: str = field(default="", repr=False)
    redis_tls_ca: str = ""
    redis_tls_cert: str = ""
    redis_tls_key: str = ""
    output_stream_maxlen: int = 100_000
    intents_per_minute: int = 60
    silence_timeout_s: float = 8.0
    startup_wait_s: float = 60.0
    docker_host: str = "unix:///var/run/docker.sock"
    docker_tls_ca: str = ""
    docker_tls_certificate: str = ""
    docker_tls_key: str = ""
    docker_network: str = "galaxy-net"
    game_state_dir_mode: int = 0o750
    game_state_owner_uid: int = 0
    game_state_owner_gid: int = 0
    game_state_min_free_bytes: int = 1 << 20
    lobby_timeout_s: float = 2.0
    default_limits: Limits = field(default_factory=lambda: Limits(1.0, 512 << 20, 512))
    stop_grace_s: int = 30
    container_retention_days: int = 30
    engine_state_mount_path: str = "/var/lib/galaxy-game"
    engine_state_env_name: str = "GAME_STATE_PATH"
    image_pull_policy: PullPolicy = PullPolicy.IF_MISSING
    docker_log_driver: str = "json-file"
    docker_log_options: Mapping[str, str] = field(default_factory=lambda: {"max-size": "10m", "max-file": "3"})
    image_pull_timeout_s: float = 600.0
    image_pull_progress_timeout_s: float = 60.0
    pulls_per_registry: int = 8
    image_allow: tuple[ImagePattern, ...] = ()
    image_require_digest: bool = False
    first_start_watch_s: float = 0.25
    max_parallel_operations: int = 32
    deferral_limit_s: float = 900.0
    inspect_interval_s: float = 30.0
    probe_interval_s: float = 15.0
    probe_timeout_s: float = 2.0
    probe_failures_threshold: int = 3
    probe_target: str = "auto"
    reconcile_interval_s: float = 300.0
    cleanup_interval_s: float = 3600.0
    operations_retention_s: float = 30 * 86400.0
    dead_letters_retention_s: float = 30 * 86400.0
    input_streams_retention_s: float = 7 * 86400.0
    operation_log_retention_s: float = 0.0
    image_retention_s: float = 0.0
    outage_restart: bool = True
    outage_restarts_at_once: int = 4
    crash_restart: bool = False
    probe_restart: bool = False
    crash_restart_budget: int = 3
    crash_restart_window_s: float = 600.0
    crash_restart_first_pause_s: float = 5.0
    crash_restart_longest_pause_s: float = 300.0
    game_lease_ttl_s: int = 60
    failpoints: str = ""
    log_level: str = "info"
    log_format: str = "auto"
    shutdown_timeout_s: float = 30.0
    otel_service_name: str = "galaxy-rtmanager"
    otel_traces_exporter: str = "none"
    otel_metrics_exporter: str = "none"
    streams: Mapping[Stream, str] = field(
        default_factory=lambda: {stream: default for stream, (default, _) in STREAMS.items()}
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Read `VARIABLES` from `environment`. Raises `ConfigError` with all faults.

        An empty variable counts as not set, as after an empty substitution in a compose file, unless `may_be_empty`.
        """
        found: dict[str, Any] = {}
        faults = [
            *_read_all(environment, found),
            *_shared_streams(found),
            *_redis_tls(found),
            *_docker_tls(found),
            *_log_options(environment, found),
        ]
        if faults:
            raise ConfigError(faults)
        streams = {stream: found.pop(f"stream_{stream}") for stream in Stream}
        limits = Limits(found.pop("default_cpus"), found.pop("default_memory"), found.pop("default_pids"))
        return cls(**found, streams=streams, default_limits=limits)


def _read_all(environment: Mapping[str, str], found: dict[str, Any]) -> list[str]:
    faults = []
    for variable in VARIABLES:
        text = _given(environment, variable.name)
        path = _given(environment, variable.name + secret_file.SUFFIX) if variable.secret else ""
        try:
            if path:
                text = _from_file(variable.name, path, text)
            elif not text and not (variable.may_be_empty and variable.name in environment):
                if variable.default is None:
                    faults.append(f"{variable.name} is not set: {variable.meaning}")
                    continue
                text = variable.default
            found[variable.attribute] = variable.parse(parsers.encodable(text))
        except ConfigError as error:
            faults += error.faults
        except InvalidSetting as error:
            value = "its value (not shown: it may hold a secret)" if variable.secret else _shown(text)
            faults.append(f"{variable.name}: {value} is not {error}")
    return faults


def _given(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def _from_file(name: str, path: str, given: str) -> str:
    """Return the secret in the file. Raises `ConfigError`, which names the file."""
    if given:
        raise ConfigError([f"{name} and {name}{secret_file.SUFFIX} are both set: remove one of them"])
    if not path.startswith("/"):
        value = "its value (not shown: it may be the secret itself)"
        raise ConfigError([f"{name}{secret_file.SUFFIX}: {value} is not an absolute path"])
    try:
        return secret_file.read(path)
    except InvalidSetting as error:
        raise ConfigError([f"{name}{secret_file.SUFFIX}: {path!r} is not {error}"]) from error


def _shown(text: str) -> str:
    """Return a value for a message; text before an @ may be a password, whatever the variable."""
    before, at, after = text.rpartition("@")
    return repr(f"…@{after}" if at else before + after)


def _shared_streams(found: Mapping[str, Any]) -> list[str]:
    """Report streams with one name: they would be read and written as one."""
    variables: dict[str, list[str]] = {}
    for stream in Stream:
        if name := found.get(f"stream_{stream}"):
            variables.setdefault(name, []).append(f"RTMANAGER_REDIS_{stream.name}_STREAM")
    return [
        f"{' and '.join(names)}: {name!r} names one stream, but each needs a name of its own"
        for name, names in variables.items()
        if len(names) > 1
    ]


def _redis_tls(found: Mapping[str, Any]) -> list[str]:
    """Report TLS settings for a connection without TLS, which their author believes to be encrypted."""
    address = found.get("redis_addr")
    if address is None or address.tls:
        return (
            []
            if found.get("redis_tls_cert") or not found.get("redis_tls_key")
            else ["RTMANAGER_REDIS_TLS_KEY is set without RTMANAGER_REDIS_TLS_CERT, the certificate that it belongs to"]
        )
    return [
        f"RTMANAGER_{name.upper()} is set, but RTMANAGER_REDIS_MASTER_ADDR asks for no TLS: write rediss://{address}"
        for name in ("redis_tls_ca", "redis_tls_cert", "redis_tls_key")
        if found.get(name)
    ]


def _docker_tls(found: Mapping[str, Any]) -> list[str]:
    """Report TLS settings that have no effect without each other."""
    names = {
        "docker_tls_ca": "RTMANAGER_DOCKER_TLS_CA",
        "docker_tls_certificate": "RTMANAGER_DOCKER_TLS_CERT",
        "docker_tls_key": "RTMANAGER_DOCKER_TLS_KEY",
    }
    given = {names[attribute] for attribute in names if found.get(attribute)}
    faults = []
    if given and str(found.get("docker_host", "tcp:")).startswith("unix:"):
        faults.append(f"{' and '.join(sorted(given))}: TLS is for a tcp:// address in RTMANAGER_DOCKER_HOST")
    pair = ("RTMANAGER_DOCKER_TLS_CERT", "RTMANAGER_DOCKER_TLS_KEY")
    if len(given.intersection(pair)) == 1:
        [missing] = set(pair) - given
        faults.append(f"{missing} is not set: a client certificate needs its key, and a key its certificate")
    return faults


def _log_options(environment: Mapping[str, str], found: dict[str, Any]) -> list[str]:
    """Check the log options; the default is for drivers that write files, and any other rejects it."""
    name, driver = "RTMANAGER_DOCKER_LOG_OPTS", found.get("docker_log_driver", "")
    if name not in environment and driver not in log_options.FILE_DRIVERS:
        found["docker_log_options"] = {}
    why = log_options.fault(driver, found.get("docker_log_options", {}))
    return [f"{name}: Docker starts nothing with the log driver {driver} and these options: {why}"] if why else []


def unknown_names(environment: Mapping[str, str]) -> list[str]:
    """Return variables with the manager's prefix that it does not read. No fault (an orchestrator adds some)."""
    known = {variable.name for variable in VARIABLES}
    known |= {variable.name + secret_file.SUFFIX for variable in VARIABLES if variable.secret}
    return sorted(name for name in environment if name.startswith("RTMANAGER_") and name not in known)
