"""Tests of the campaigns themselves, without services."""
