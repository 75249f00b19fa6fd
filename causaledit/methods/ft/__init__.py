"""FT: fine-tuning of chosen weights on the new answer's tokens, with an optional L∞ bound on the update."""
