"""Scores of generated reports, with baselines, intervals, tests and alarms (docs/evaluation.md)."""
