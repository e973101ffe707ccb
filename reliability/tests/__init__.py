"""Tests of the tools themselves, without services."""
