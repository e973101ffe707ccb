"""Startup and shutdown of the manager, and its sharing of work with other instances."""

from reliability.mutants.check import module
from reliability.mutants.mutant import Edit, Mutant

MUTANTS = (
    Mutant(
        "defects-not-shown",
        "a worker that fails each time by a defect does so with /readyz 200",
        Edit("bootstrap/app.py", "        return {**self._workers.problems(), **away}\n", "        return away\n"),
        check=module("test_logging"),
    ),
    Mutant(
        "logs-are-waited-for",
        "with nobody to read stderr the process ignores SIGTERM",
        Edit("logs.py", "FLUSH_S = 1.0\n", "FLUSH_S = 3600.0\n"),
        check=module("test_logging"),
    ),
    Mutant(
        "stderr-number-is-free",
        "with stderr closed a connection gets its number, and what is logged goes to PostgreSQL",
        Edit(
            "standard_streams.py",
            "            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one\n",
            "            continue\n",
        ),
        check=module("test_logging"),
    ),
    Mutant(
        "listens-before-migrating",
        "the service serves before its tables are there, and does not come up on an empty database",
        Edit(
            "bootstrap/app.py",
            """        applied = migrate(parts.database, self._logger)
        if applied:
            self._logger.info("migrated", extra={"migrations": applied})
        parts.one_daemon.establish(parts.docker)
        begins()
        metrics = Metrics()
        self._workers = _workers(metrics, self._logger)
        return _Service(self._config, self._logger, parts, metrics, self._workers).start(stack)
""",
            """        begins()
        metrics = Metrics()
        self._workers = _workers(metrics, self._logger)
        http = _Service(self._config, self._logger, parts, metrics, self._workers).start(stack)
        migrate(parts.database, self._logger)
        return http
""",
        ),
        check=module("test_startup"),
    ),
    Mutant(
        "network-not-checked",
        "the service comes up without its network, and every start fails later",
        Edit(
            "bootstrap/app.py",
            "        Startup(self._config.startup_wait_s, self._logger).run(parts.checks())\n",
            """        checks = [each for each in parts.checks() if each.name != "network"]
        Startup(self._config.startup_wait_s, self._logger).run(checks)
""",
        ),
        check=module("test_startup"),
    ),
    # Only containers on the network in use: the daemon may run games of other deployments.
    Mutant(
        "shutdown-stops-games",
        "a new release of the service stops every game",
        Edit(
            "bootstrap/app.py",
            "        stack.callback(self._docker.close)\n",
            """        stack.callback(self._docker.close)

        def stop_games() -> None:
            for game in self._docker.list_games():
                if self._config.docker_network in game.networks:
                    self._docker.stop(game.container_id, 0)

        stack.callback(stop_games)
""",
        ),
        check=module("test_shutdown"),
    ),
    Mutant(
        "own-container-forgotten",
        "a start that was cut short after its container ran fails when it is done again",
        Edit(
            "domain/container.py",
            "self.state is ContainerState.RUNNING and same",
            "self.state is ContainerState.DEAD and same",
        ),
        check=module("test_crash"),
    ),
    Mutant(
        "orphans-not-taken-over",
        "a job of an instance that was killed is never finished",
        Edit("workers/lease.py", "self._queue.reclaim_orphans(", "(lambda live, by_presence: ())("),
        check=module("test_crash"),
    ),
)
