"""A process that is a Docker daemon with many games on it: `python -m bench.watch.crowded_daemon COUNT`.

A real one would need as many containers. Its list is the same text each time, so that what is measured is what the
asking side makes of it. `GET /info` tells how often it was asked for the list.
"""

import json
import sys
from contextlib import closing

from bench.watch import child, crowd
from rtmanager.tests.fake_daemon import Exchange, FakeDaemon

_LIST = "GET /containers/json"


def main(count: int) -> None:
    """Serve until it is time to end."""
    body = json.dumps(crowd.listed(count)).encode()
    with closing(FakeDaemon()) as daemon:

        def say_how_often(exchange: Exchange) -> None:
            exchange.reply(200, {"Lists": daemon.count(_LIST)})

        daemon.answers[_LIST] = lambda exchange: exchange.reply_raw(200, body)
        daemon.answers["GET /info"] = say_how_often
        daemon.start()
        child.ready(daemon.host)


if __name__ == "__main__":
    main(int(sys.argv[1]))
