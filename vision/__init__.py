"""Images. Holds no models yet; the shared operators and mixers are in :mod:`longscan.core`."""
