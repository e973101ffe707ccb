"""Stops or kills PostgreSQL, Redis and the Docker daemon of a run, and starts them again."""

from collections.abc import Callable

from harness import daemon
from harness.fixtures.dockerd import OwnDaemon
from harness.waiting import wait_until
from reliability.chaos.plan import Fault
from reliability.chaos.platform import Platform

#: Seconds; enough on a busy machine, with recovery of a log.
UP_TIMEOUT_S = 60.0
#: Seconds that a server has to stop before it is killed.
STOP_GRACE_S = 5


def kill(platform: Platform, fault: Fault) -> Callable[[], object]:
    """kill -9 of the whole server."""
    container = platform.servers()[fault.target]
    container.kill()
    container.wait_for_exit()
    return lambda: _start(platform, fault.target)


def stop(platform: Platform, fault: Fault) -> Callable[[], object]:
    """An orderly stop."""
    platform.servers()[fault.target].stop(STOP_GRACE_S)
    return lambda: _start(platform, fault.target)


def _start(platform: Platform, name: str) -> None:
    container = platform.servers()[name]
    container.client.start(container.container_id)
    wait_until(f"{name} to answer again", lambda: answers(platform, name), timeout_s=UP_TIMEOUT_S)


def answers(platform: Platform, name: str) -> bool:
    """Whether the server answers now."""
    import psycopg
    from redis.exceptions import RedisError

    try:
        if name == "postgres":
            platform.database.connect().close()
        else:
            with platform.store.client(1) as client:
                client.ping()
    except (psycopg.OperationalError, RedisError):
        return False
    return True


def stop_daemon(platform: Platform, fault: Fault) -> Callable[[], object]:
    """Send SIGTERM; without live-restore the daemon stops its containers."""
    own = _own(platform)
    _expect_ends(platform, own)
    own.stop()
    return lambda: _start_daemon(platform, own, fault)


def kill_daemon(platform: Platform, fault: Fault) -> Callable[[], object]:
    """kill -9; containers survive until its return, which without live-restore ends them."""
    own = _own(platform)
    _expect_ends(platform, own)
    own.kill()
    return lambda: _start_daemon(platform, own, fault)


#: Docker's error for a container that it can never remove: a kill during a start leaves the container's root mounted
#: and unknown to the daemon.
STUCK = "device or resource busy"


def restart_daemon_twice(platform: Platform) -> None:
    """An operator's remedy for that: without live-restore a daemon unmounts everything when it stops."""
    own = _own(platform)
    live_restore = own.live_restore
    platform.touch(*(each["Id"] for each in platform.ours()))
    own.restart(live_restore=False)
    own.restart(live_restore=live_restore)
    platform.touch(*(each["Id"] for each in platform.ours()))
    platform.revive_strangers()


def freeze_daemon(platform: Platform, _fault: Fault) -> Callable[[], object]:
    """The daemon accepts connections and answers nothing; its containers run on."""
    own = _own(platform)
    own.freeze()
    return own.thaw


def exchange_daemon(platform: Platform, _fault: Fault) -> Callable[[], object]:
    """Make every manager's address lead to another daemon, with the same image and a network of the same name."""
    own, other = _own(platform), platform.other_daemon
    assert other is not None

    def lead_to(target: OwnDaemon) -> None:
        for instance in platform.instances:
            line = instance.lines["docker"]
            line.lead_to(daemon.socket_address(target.url))
            line.cut()

    lead_to(other)
    return lambda: lead_to(own)


def _own(platform: Platform) -> OwnDaemon:
    if platform.own_daemon is None:
        raise AssertionError("a plan without a daemon of its own takes none down")
    return platform.own_daemon


def _expect_ends(platform: Platform, own: OwnDaemon) -> None:
    """Without live-restore no container survives, and the games must be started again."""
    if not own.live_restore:
        platform.note_outage()
        platform.touch(*(each["Id"] for each in platform.ours()))


def _start_daemon(platform: Platform, own: OwnDaemon, fault: Fault) -> None:
    """Start it, with or without live-restore as the fault defines."""
    survive = own.live_restore and fault.how == "live-restore"
    own.start_again(live_restore=fault.how == "live-restore")
    if not survive:
        platform.touch(*(each["Id"] for each in platform.ours()))
        platform.revive_strangers()
