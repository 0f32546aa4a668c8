"""The pass through the decoder layers that all methods share: hidden states, statistics, block gradients."""
