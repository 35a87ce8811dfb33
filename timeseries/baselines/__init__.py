"""Baselines to hold a model against: the last value, the last season, and linear maps."""
