"""The networks as torch modules: for training, for reading published checkpoints, and as the reference."""
