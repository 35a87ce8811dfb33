"""Reference implementations of audio effects, to make training data with and to compare models against."""
