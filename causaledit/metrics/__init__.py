"""From predictions and verdicts to metrics: H-Acc, M-Acc, SRR, rationale alignment, locality, with intervals."""
