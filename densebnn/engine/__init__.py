"""The engine: configuration, runs, checkpoints and the training loop."""
