"""A local page to look at an edit: ask before and after, and read its narrative, probes and history."""
