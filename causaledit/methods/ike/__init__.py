"""IKE: the new facts (and demonstrations) before every prompt; no weight changes. The upper reference."""
