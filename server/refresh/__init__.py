"""A new backbone when new heads no longer help: simulated fields, weighted toward what the fleet's sums say."""
