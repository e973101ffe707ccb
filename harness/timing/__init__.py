"""RTM_IT_TIMING=1: where a run's time went, printed at its end.

A relay in a process of its own stands between the run and the Docker daemon and notes each request, also those
of managers under test; `span` notes what the run itself was doing meanwhile. The difference is what the harness,
the tests and the managers cost beyond Docker.
"""

from harness.timing.clock import enabled, relayed, report_at_exit, span

__all__ = ["enabled", "relayed", "report_at_exit", "span"]
