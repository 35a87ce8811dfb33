"""Time series: readers, protocols, metrics, back-tests and baselines. The shared mixers are in :mod:`longscan.core`."""
