"""ICE: consistent in-context editing (arXiv 2406.11194), gradient editing toward the model's own in-context answers."""
