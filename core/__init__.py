"""The shared backbone: operators, mixers, stacks, pretrained weights, generation and training. Knows no domain."""
