"""Scores of generated reports, what they mean, and what they have to beat (SPEC 1.9, DESIGN 7)."""
