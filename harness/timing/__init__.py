"""RTM_IT_TIMING=1: report where a run's time went, at its end.

A relay process between the run and the Docker daemon records each request, also those of managers under test. `span`
records what the run itself does meanwhile. The difference is the cost of harness, tests and managers beyond Docker.
"""

from harness.timing.clock import enabled, relayed, report_at_exit, span

__all__ = ["enabled", "relayed", "report_at_exit", "span"]
