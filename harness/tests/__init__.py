"""The harness's own tests; the modules that need Docker skip themselves unless RTM_INTEGRATION is set."""
