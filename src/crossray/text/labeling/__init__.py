"""Reading observations out of a report by rules.

`tokens` cuts the text into words, `lexicon` finds the phrases among them (`registry`, `language`), `mentions` joins a
structure with what is said about it ("heart ... enlarged"), and `scopes` decides what is asserted, denied and doubted.
"""
