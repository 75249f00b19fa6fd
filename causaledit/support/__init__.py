"""Files, paths, endpoints, statistics, costs: what knows nothing of editing."""
