"""Knowing when not to answer: calibrated confidence of what a report says, and a check of what a model is shown."""
