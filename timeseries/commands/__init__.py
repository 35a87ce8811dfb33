"""The commands of time series beside the training ones; each is imported only when it runs."""
