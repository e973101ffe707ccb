"""One pass of the reconciler over the containers of a real Docker.

The containers are created and not started: starting two hundred takes half a minute, and adds nothing to Docker's
list. Their games are therefore recorded as stopped.
"""

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

from bench.comparison import Contest
from bench.synthetic import games
from bench.watch.reconciling import Pass
from harness import daemon
from harness.fixtures import network
from harness.fixtures.network import Network
from harness.rtm import engine_image
from harness.runs import identity
from rtmanager.domain.container import KIND, LABEL_GAME_ID, LABEL_IMAGE_REF, LABEL_KIND, LABEL_OWNER, OWNER
from rtmanager.domain.game import container_name
from rtmanager.domain.record import RuntimeRecord, Status

CONTAINERS = 200

#: Containers that are created at once.
THREADS = 4


def contests() -> Iterator[Contest]:
    """Compare a pass in which records and containers agree."""
    with _containers() as records, Pass.over(records, daemon.host()) as made:
        yield made.contest(f"one pass over {CONTAINERS} records and real containers", CONTAINERS)


@contextmanager
def _containers() -> Iterator[Sequence[RuntimeRecord]]:
    """Create the containers; yields the records that agree with them."""
    on, run = network.create(), secrets.token_hex(4)
    try:
        with ThreadPoolExecutor(THREADS) as threads:
            yield list(threads.map(lambda record: _made(record, run, on), games.records(CONTAINERS)))
    finally:
        on.remove()


def _made(record: RuntimeRecord, run: str, on: Network) -> RuntimeRecord:
    """Create the game's container as a stop leaves it, under a name of this run; returns its record."""
    record = replace(record, game_id=f"{run}-{record.game_id}", status=Status.STOPPED, stopped_at=games.STARTED)
    labels = {
        LABEL_OWNER: OWNER,
        LABEL_KIND: KIND,
        LABEL_GAME_ID: record.game_id,
        LABEL_IMAGE_REF: engine_image().ref,
        **identity.current().labels(),
    }
    made = on.client.create_container(
        engine_image().ref,
        name=container_name(record.game_id),
        labels=labels,
        host_config=on.client.create_host_config(network_mode=on.name),
    )
    return replace(record, current_container_id=made["Id"])
