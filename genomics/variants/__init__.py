"""What a model thinks of variants: windows around them, scores, and tables of results."""
