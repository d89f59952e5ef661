"""Benchmarks: ``make bench ARGS=NAME``. Not tests: they measure, and print what docs/benchmarks.md quotes."""
