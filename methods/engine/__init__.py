"""The pass through the decoder layers that methods share: hidden states, statistics, gradients of a block."""
