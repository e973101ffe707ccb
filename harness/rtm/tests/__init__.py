"""Tests of the harness for the Runtime Manager; those that need Docker are skipped unless RTM_INTEGRATION is set."""
