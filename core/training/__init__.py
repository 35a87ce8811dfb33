"""Training on Lightning: resumable data, optimiser groups, schedules, tasks, callbacks and the training verbs.

Nothing is imported here; ``longscan.core.training.cli`` stays light until a verb runs.
"""
