"""Files, paths, endpoints, statistics, costs: everything that knows nothing about editing."""
