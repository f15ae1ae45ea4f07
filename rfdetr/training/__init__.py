"""Training: matching, losses, the draw of architectures, optimiser, checkpoints and the loop."""
