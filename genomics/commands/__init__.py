"""What ``longscan genomics`` does beside training, one module per verb."""
