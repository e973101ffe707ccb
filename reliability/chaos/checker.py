"""Checks a platform after a round: the invariants, the answers to callers, and the observations.

An answer is binding. A 200 has its row in the log; an error has no row of a success. A 503 states that the operation
continues, and then it must; or that it is done; otherwise it must not be done, unless the 503 states that the result is
unknown. Without an answer, both outcomes are valid.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from harness import web
from reliability.chaos.platform import CLOCK_S, Platform
from reliability.invariants import Job, violations

#: Without this text a 503 promises that nothing will be done.
_GOES_ON = "goes on"
#: With this text the operation is done, and only the record for the answer cannot be read.
_DONE = "succeeded, but"
#: With this text the 503 promises nothing: whether the request was accepted is unknown.
_IN_DOUBT = "not known"
#: The error code of an operation that was given up.
_GIVEN_UP = "service_unavailable"
#: Error codes of requests that never became an operation: malformed, or the game was busy.
_BEFORE = ("invalid_request", "conflict")


def jobs(platform: Platform) -> list[Job]:
    """All entries of the input streams, which are not trimmed."""
    client: Any = platform.world.redis
    found = []
    for stream in platform.world.inputs:
        found += [Job(stream, entry_id, fields.get("game_id")) for entry_id, fields in client.xrange(stream)]
    return found


def everything(platform: Platform) -> list[str]:
    """All violations, on a quiet platform."""
    with platform.lock:
        touched = set(platform.touched)
    return [
        *violations(
            platform.world,
            jobs(platform),
            bystanders=list(platform.bystanders.values()),
            markers=platform.markers,
            deaths=touched,
        ),
        *_outages(platform),
        *_elsewhere(platform),
        *_moments(platform),
        *_answers(platform),
        *_lost_entries(platform),
        *_reported_by_instances(platform),
    ]


def _outages(platform: Platform) -> Iterator[str]:
    """A game that ended with the daemon runs again, unless another state was requested since."""
    stopped = "SELECT game_id, current_container_id FROM runtime_records WHERE status = 'stopped'"
    containers = {row["game_id"]: row["current_container_id"] for row in platform.world.rows(stopped)}
    latest = "SELECT game_id, max(finished_at) AS moment FROM operation_log GROUP BY game_id"
    moments = {row["game_id"]: row["moment"] for row in platform.world.rows(latest)}
    for game_id, (container_id, since) in platform.outages.items():
        is_as_it_ended = containers.get(game_id) == container_id and container_id not in platform.by_hand
        if is_as_it_ended and not (game_id in moments and moments[game_id] > since):
            yield f"outage: {game_id} ended in {container_id[:12]} with the daemon at {since:%T} and is not back"


def _elsewhere(platform: Platform) -> Iterator[str]:
    """Nothing was ever started on the daemon that does not belong to the managers."""
    for each in platform.elsewhere.containers(all=True) if platform.elsewhere else ():
        if each["State"] != "created":
            yield f"one daemon: container {each['Id'][:12]} {each['Names']} was started on another one"


def _moments(platform: Platform) -> Iterator[str]:
    """Stored times are of PostgreSQL's clock, whatever the clock of a manager's host."""
    moments = (("operation_log", "started_at"), ("operation_log", "finished_at"), ("runtime_records", "last_op_at"))
    for table, moment in moments:
        wrong = f"{moment} > now() + interval '{CLOCK_S} s' OR {moment} < now() - interval '12 h'"
        for row in platform.world.rows(f"SELECT game_id, {moment} AS moment FROM {table} WHERE {wrong}"):
            yield f"clocks: {table}.{moment} of {row['game_id']} is {row['moment']}"


def _lost_entries(platform: Platform) -> Iterator[str]:
    """Entries that Redis acknowledged exist: otherwise the servers of this run are not durable."""
    there = {job.source_ref.partition(":")[2].partition(":")[2] for job in jobs(platform)}
    for deed in platform.history.deeds:
        entry = deed.get("entry")
        if entry is not None and entry not in there:
            yield f"run: Redis acknowledged entry {entry} and has lost it"


def _answers(platform: Platform) -> Iterator[str]:
    rows = _calls(platform)
    for deed in platform.history.deeds:
        if "request" in deed and deed["method"] != "GET":
            yield from binds(deed, rows.get(f"rest:{deed['request']}"))


def _calls(platform: Platform) -> dict[str, Mapping[str, Any]]:
    """The last row of each request: that of the operation itself."""
    query = "SELECT * FROM operation_log WHERE op_source IN ('gm_rest', 'admin_rest') ORDER BY id"
    return {row["source_ref"]: row for row in platform.world.rows(query)}


def binds(deed: Mapping[str, Any], row: Mapping[str, Any] | None) -> Iterator[str]:
    """Contradictions between an answer and the row of its operation; None when it has no row."""
    outcome = deed["outcome"]
    description = f"answers: {deed['what']} of {deed['game']} ({deed['request']}) was answered {deed.get('status')}"
    logged = f"the log says {row['outcome']} {row['error_code'] or ''}".rstrip() if row else "the log has no row"
    message = deed.get("message") or ""
    if outcome == "ok" and (row is None or row["outcome"] != "success"):
        yield f"{description}, {logged}"
    elif outcome == "refused" and (row["error_code"] != deed["code"] if row else deed["code"] not in _BEFORE):
        yield f"{description} {deed['code']}, {logged}"
    elif outcome == "unavailable" and _IN_DOUBT in message:
        return
    elif outcome == "unavailable" and _GOES_ON in message:
        if row is None or row["error_code"] == _GIVEN_UP:
            yield f"{description} and goes on by itself, {logged}"
    elif outcome == "unavailable" and _DONE in message:
        if row is None or row["outcome"] != "success":
            yield f"{description} and is done, {logged}"
    elif outcome == "unavailable" and row is not None and row["outcome"] == "success":
        yield f"{description} ({message}), {logged}"
    elif outcome == "nobody there" and row is not None:
        yield f"{description}: nobody was there, {logged}"


def _reported_by_instances(platform: Platform) -> Iterator[str]:
    """Each instance returns the database's state of each game."""
    records = {row["game_id"]: row for row in platform.world.rows("SELECT * FROM runtime_records")}
    for instance in platform.instances:
        for game_id in platform.games:
            status, answer = web.call("GET", f"{instance.base_url}/api/v1/internal/runtimes/{game_id}")
            record = records.get(game_id)
            expected = (200, record["status"], record["current_container_id"]) if record else (404, None, None)
            if (status, answer.get("status"), answer.get("current_container_id")) != expected:
                yield f"answers: instance {instance.number}: {status} {answer} of {game_id}, recorded is {record}"
