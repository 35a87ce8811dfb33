"""Recordings 0 to 24 of each digit and speaker of the Free Spoken Digit Dataset; see ATTRIBUTION.md."""
