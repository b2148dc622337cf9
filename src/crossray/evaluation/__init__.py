"""Scores of generated reports, what they mean, and what they have to beat (docs/evaluation.md)."""
