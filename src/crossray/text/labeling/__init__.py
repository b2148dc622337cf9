"""The rules that extract observations from a report.

`tokens` splits the text into words, `lexicon` finds the phrases among them (`registry`, `language`), `mentions` joins a
structure with its description ("heart ... enlarged"), and `scopes` decides what is asserted, negated and uncertain.
"""
