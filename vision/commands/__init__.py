"""What ``longscan vision`` does beside training, one module per verb."""
