"""The fleet's server: sums the gateways' statistics, improves and releases models, runs campaigns."""
