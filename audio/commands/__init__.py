"""What ``longscan audio`` does beside training, one module per verb."""
