"""Judges: what a response says about an edit, as verdicts. One interface, three judges."""
