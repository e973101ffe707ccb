"""Startup and shutdown of the manager, and its sharing of work with other instances."""

from reliability.mutants.mutant import Mutant

MUTANTS = (
    Mutant(
        name="defects-not-shown",
        breaks="a worker that fails each time by a defect does so with /readyz 200",
        file="rtmanager/bootstrap/app.py",
        old="        return {**self._workers.problems(), **away}\n",
        new="        return away\n",
        module="test_logging",
    ),
    Mutant(
        name="logs-are-waited-for",
        breaks="with nobody to read stderr the process ignores SIGTERM",
        file="rtmanager/logs.py",
        old="FLUSH_S = 1.0\n",
        new="FLUSH_S = 3600.0\n",
        module="test_logging",
    ),
    Mutant(
        name="stderr-number-is-free",
        breaks="with stderr closed a connection gets its number, and what is logged goes to PostgreSQL",
        file="rtmanager/standard_streams.py",
        old="            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one\n",
        new="            continue\n",
        module="test_logging",
    ),
    Mutant(
        name="listens-before-migrating",
        breaks="the service serves before its tables are there, and does not come up on an empty database",
        file="rtmanager/bootstrap/app.py",
        old="""        applied = migrate(parts.database, self._logger)
        if applied:
            self._logger.info("migrated", extra={"migrations": applied})
        parts.one_daemon.establish(parts.docker)
        begins()
        metrics = Metrics()
        self._workers = _workers(metrics, self._logger)
        return _Service(self._config, self._logger, parts, metrics, self._workers).start(stack)
""",
        new="""        begins()
        metrics = Metrics()
        self._workers = _workers(metrics, self._logger)
        http = _Service(self._config, self._logger, parts, metrics, self._workers).start(stack)
        migrate(parts.database, self._logger)
        return http
""",
        module="test_startup",
    ),
    Mutant(
        name="network-not-checked",
        breaks="the service comes up without its network, and every start fails later",
        file="rtmanager/bootstrap/app.py",
        old="        Startup(self._config.startup_wait_s, self._logger).run(parts.checks())\n",
        new="""        checks = [each for each in parts.checks() if each.name != "network"]
        Startup(self._config.startup_wait_s, self._logger).run(checks)
""",
        module="test_startup",
    ),
    Mutant(
        name="shutdown-stops-games",
        breaks="a new release of the service stops every game",
        file="rtmanager/bootstrap/app.py",
        # Only containers on the network in use: the daemon may run games of other deployments.
        old="        stack.callback(self._docker.close)\n",
        new="""        stack.callback(self._docker.close)

        def stop_games() -> None:
            for game in self._docker.list_games():
                if self._config.docker_network in game.networks:
                    self._docker.stop(game.container_id, 0)

        stack.callback(stop_games)
""",
        module="test_shutdown",
    ),
    Mutant(
        name="own-container-forgotten",
        breaks="a start that was cut short after its container ran fails when it is done again",
        file="rtmanager/domain/container.py",
        old="self.state is ContainerState.RUNNING and same",
        new="self.state is ContainerState.DEAD and same",
        module="test_crash",
    ),
    Mutant(
        name="orphans-not-taken-over",
        breaks="a job of an instance that was killed is never finished",
        file="rtmanager/workers/lease.py",
        old="self._queue.reclaim_orphans(",
        new="(lambda live, by_presence: ())(",
        module="test_crash",
    ),
)
