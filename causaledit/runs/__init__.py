"""A run over cases: planned, executed with exact undo, resumable, in the published layout."""
