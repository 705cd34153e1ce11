"""How a model is trained: the task, its optimizer, devices and checkpoints, and what a training says of itself."""
