"""Several methods side by side on the same cases, probes and judge."""
