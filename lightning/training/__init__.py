"""Training by Lightning: module, data, callbacks, checkpoints, resuming."""
