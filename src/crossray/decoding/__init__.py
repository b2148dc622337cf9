"""Greedy search, beam search and sampling over one incremental-step interface."""
