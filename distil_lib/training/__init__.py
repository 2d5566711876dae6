"""The pretraining program: settings, set-up, loop, optimizers, checkpoints, run folder, costs."""
