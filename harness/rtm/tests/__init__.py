"""Tests of `harness.rtm`; those that need Docker are skipped unless RTM_INTEGRATION is set."""
