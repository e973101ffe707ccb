"""The operations of the matrix: initial state, request, and required result.

The result of a job, and of a change to a container, is certain. After an answer to a request it is certain, too.
Without an answer the game is either unchanged or in the requested state.
"""

import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.fixtures import container
from reliability.crashes.platform import Platform

Record = Mapping[str, Any]
Request = Callable[[Platform, str], int | None]

#: An image that does not exist, in a registry that no request reaches.
NO_IMAGE = "registry.invalid/galaxy/game:1.0.0"
OK = 200
#: Seconds before its start from which a manager reads past events, and a half more.
UNSEEN_S = 2.5
#: Seconds in which another daemon answers: many passes, and several deferrals of a job.
EXCHANGED_S = 4.0
#: The clock of a host is off by a day.
OFF_S = 86400


@dataclass(frozen=True)
class Scenario:
    """One operation on one game."""

    name: str
    #: Creates the initial state; afterwards a manager serves, unless `starts_up`.
    prepare: Callable[[Platform, str], None]
    #: Sends the request; returns the status of the answer, None when there is none.
    request: Request
    #: Whether the record fits the request, given the record before.
    done: Callable[[Record, Record], bool]
    #: The outcome of the job, where it is one.
    outcome: str = ""
    #: Whether a caller waits for the answer, and may repeat the request.
    called: bool = False
    #: Whether the manager starts only after the request.
    starts_up: bool = False
    #: Other failpoints to arm.
    arms: str = ""
    #: Whether its platform has its own Docker daemon.
    own_daemon: bool = False
    #: Seconds by which the clock of the manager's host is off.
    clock_off_s: int = 0
    #: Another required result.
    also: Callable[[Platform, str], bool] = lambda _platform, _game_id: True

    def fits(self, platform: Platform, game_id: str, before: Record, answer: int | None) -> bool:
        """Whether the game is in a valid state now."""
        now = platform.record(game_id)
        if self.done(before, now) and platform.outcome(game_id) == self.outcome and self.also(platform, game_id):
            return True
        return self.called and answer != OK and _same(before, now)


def _same(before: Record, now: Record) -> bool:
    kept = ("status", "current_container_id", "current_image_ref")
    return [before.get(name) for name in kept] == [now.get(name) for name in kept]


def _is_none(_before: Record, now: Record) -> bool:
    return not now


def _runs(_before: Record, now: Record) -> bool:
    return now.get("status") == "running"


def _is(status: str) -> Callable[[Record, Record], bool]:
    return lambda _before, now: now.get("status") == status


def _is_another(before: Record, now: Record) -> bool:
    return _runs(before, now) and now["current_container_id"] != before["current_container_id"]


def _is_patched(before: Record, now: Record) -> bool:
    return _is_another(before, now) and now["current_image_ref"] != before["current_image_ref"]


def _nothing(platform: Platform, _game_id: str) -> None:
    platform.serve()


def _running(platform: Platform, game_id: str) -> None:
    platform.start_game(game_id)


def _stopped(platform: Platform, game_id: str) -> None:
    platform.start_game(game_id)
    assert platform.call("POST", game_id, "/stop", _a_reason(platform)) == OK


def _not_even_a_table(platform: Platform, _game_id: str) -> None:
    platform.kill()
    platform.forget()


def _start_job(platform: Platform, game_id: str) -> None:
    platform.add_job("start_jobs", game_id, image_ref=platform.engine.ref)


def _start_job_to_pull(platform: Platform, game_id: str) -> None:
    """Start a job of an image that only a registry has."""
    platform.add_job("start_jobs", game_id, image_ref=platform.published(game_id))


def _start_job_of_no_image(platform: Platform, game_id: str) -> None:
    platform.add_job("start_jobs", game_id, image_ref=NO_IMAGE)


def _stop_job(platform: Platform, game_id: str) -> None:
    platform.add_job("stop_jobs", game_id, reason="finished")


def _malformed_job(platform: Platform, game_id: str) -> None:
    """Add an entry without a game, and one after it with a game."""
    platform.add_job("stop_jobs", "", reason="finished")
    _stop_job(platform, game_id)


def _call(method: str, path: str, body: Callable[[Platform], object] = lambda _platform: None) -> Request:
    return lambda platform, game_id: platform.call(method, game_id, path, body(platform))


def _the_image(platform: Platform) -> object:
    return {"image_ref": platform.engine.ref}


def _the_patched_image(platform: Platform) -> object:
    return {"image_ref": platform.engine.patched_ref}


def _a_reason(_platform: Platform) -> object:
    return {"reason": "finished"}


def _inspect(platform: Platform, game_id: str) -> int | None:
    """Read as an operator does: health, operations, record."""
    answers = [platform.call("GET", game_id, path) for path in ("/health", "/operations", "")]
    return OK if answers == [OK] * 3 else None


def _kill(platform: Platform, game_id: str) -> None:
    platform.docker.kill(platform.record(game_id)["current_container_id"])


def _crash(platform: Platform, game_id: str) -> None:
    """End the engine's process; the end appears spontaneous to every observer.

    By SIGSEGV: a manager that missed the event of an end by SIGKILL assumes a manual kill.
    """
    found = platform.docker.inspect_container(platform.record(game_id)["current_container_id"])
    init = found["State"]["Pid"]
    [engine] = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    os.kill(int(engine), signal.SIGSEGV)


def _remove(platform: Platform, game_id: str) -> None:
    container.remove(platform.docker, platform.record(game_id)["current_container_id"])


def _remove_unseen(platform: Platform, game_id: str) -> None:
    """Remove the container while no manager runs, longer ago than the next one's request for past events reaches."""
    platform.kill()
    _remove(platform, game_id)
    time.sleep(UNSEEN_S)
    platform.start()


def _run_again(platform: Platform, game_id: str) -> None:
    platform.docker.start(platform.record(game_id)["current_container_id"])


def _grow_old(platform: Platform, game_id: str) -> None:
    platform.sql("UPDATE runtime_records SET last_op_at = last_op_at - interval '31 days' WHERE game_id = %s", game_id)


def _start_job_and_sigterm(platform: Platform, game_id: str) -> None:
    _start_job(platform, game_id)
    platform.wait_for_point("docker.start.before", game_id)
    platform.send("TERM")


def _start_up(platform: Platform, game_id: str) -> None:
    _start_job(platform, game_id)
    platform.start()


def _restart_docker(platform: Platform, _game_id: str) -> None:
    platform.own_daemon().restart()


def _lose_power(platform: Platform, _game_id: str) -> None:
    """The host loses power with everything that runs on it, and boots."""
    platform.kill()
    platform.own_daemon().cut_power()
    platform.own_daemon().start_again()
    platform.start()


def _stop_job_on_another_daemon(platform: Platform, game_id: str) -> None:
    """Add a job while the address leads to another daemon; the record must not change meanwhile."""
    before = platform.record(game_id)
    with platform.another_daemon():
        _stop_job(platform, game_id)
        until = time.monotonic() + EXCHANGED_S
        while time.monotonic() < until:
            assert _same(before, platform.record(game_id)), f"{platform.record(game_id)} was {before}"
            time.sleep(0.2)


def _age_operations(platform: Platform, game_id: str) -> None:
    old = "accepted_at = accepted_at - interval '31 days', finished_at = finished_at - interval '31 days'"
    platform.sql(f"UPDATE operations SET {old} WHERE game_id = %s", game_id)


def _has_no_operations(platform: Platform, game_id: str) -> bool:
    return not platform.count("operations WHERE game_id = %s", game_id)


def _pulled_and_removed(platform: Platform, game_id: str) -> None:
    ref = platform.published(game_id)
    assert platform.serve().call("POST", game_id, "/start", {"image_ref": ref}) == OK
    assert platform.call("POST", game_id, "/stop", _a_reason(platform)) == OK
    assert platform.call("DELETE", game_id, "/container") == OK


def _age_image(platform: Platform, game_id: str) -> None:
    old = "unnamed_since = clock_timestamp() - interval '2 hours'"
    platform.sql(f"UPDATE pulled_images SET {old} WHERE image_ref LIKE %s", f"%{game_id}%")


def _has_no_image(platform: Platform, game_id: str) -> bool:
    images = platform.docker.images(filters={"reference": f"*/{game_id}"})
    return not images and not platform.count("pulled_images WHERE image_ref LIKE %s", f"%{game_id}%")


#: Without a request: the failpoints of periodic workers, whatever the operation.
IDLE = Scenario("idle", _nothing, lambda _platform, _game_id: None, _is_none)

SCENARIOS = {
    each.name: each
    for each in (
        Scenario("start job", _nothing, _start_job, _runs, "success"),
        Scenario("start job, again", _stopped, _start_job, _is_another, "success"),
        Scenario("start job, runs already", _running, _start_job, _same, "success"),
        Scenario("start job, pulled", _nothing, _start_job_to_pull, _runs, "success"),
        Scenario("start job, no image", _nothing, _start_job_of_no_image, _is_none, "failure"),
        Scenario(
            "start job, put off",
            _nothing,
            _start_job,
            _runs,
            "success",
            arms="docker.create.before=raise",
        ),
        Scenario("stop job", _running, _stop_job, _is("stopped"), "success"),
        Scenario("malformed job", _running, _malformed_job, _is("stopped"), "success"),
        Scenario("start", _nothing, _call("POST", "/start", _the_image), _runs, called=True),
        Scenario("stop", _running, _call("POST", "/stop", _a_reason), _is("stopped"), called=True),
        Scenario("restart", _running, _call("POST", "/restart"), _is_another, called=True),
        Scenario(
            "patch",
            _running,
            _call("POST", "/patch", _the_patched_image),
            _is_patched,
            called=True,
        ),
        Scenario("cleanup", _stopped, _call("DELETE", "/container"), _is("removed"), called=True),
        Scenario("look", _running, _inspect, _same, called=True),
        Scenario("container killed", _running, _kill, _is("stopped")),
        Scenario("engine crashed", _running, _crash, _is_another),
        Scenario("container removed", _running, _remove, _is("removed")),
        Scenario("container removed unseen", _running, _remove_unseen, _is("removed"), starts_up=True),
        Scenario("container started", _stopped, _run_again, _runs),
        Scenario("retention", _stopped, _grow_old, _is("removed")),
        Scenario(
            "shutdown",
            _nothing,
            _start_job_and_sigterm,
            _runs,
            "success",
            arms="docker.start.before=hang",
        ),
        Scenario("start-up", _not_even_a_table, _start_up, _runs, "success", starts_up=True),
        Scenario("docker restarted", _running, _restart_docker, _is_another, own_daemon=True),
        Scenario("host restarted", _running, _lose_power, _runs, own_daemon=True, starts_up=True),
        Scenario(
            "stop job, daemon exchanged",
            _running,
            _stop_job_on_another_daemon,
            _is("stopped"),
            "success",
            own_daemon=True,
        ),
        Scenario("start job, clock ahead", _nothing, _start_job, _runs, "success", clock_off_s=OFF_S),
        Scenario("engine crashed, clock behind", _running, _crash, _is_another, clock_off_s=-OFF_S),
        Scenario("operations purged", _stopped, _age_operations, _same, also=_has_no_operations),
        Scenario("image removed", _pulled_and_removed, _age_image, _same, also=_has_no_image),
    )
}
