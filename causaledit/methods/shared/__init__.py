"""What several methods share; no method stands here."""
