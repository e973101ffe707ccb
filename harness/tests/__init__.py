"""The harness's own tests; the modules that need Docker are skipped unless RTM_INTEGRATION is set."""
