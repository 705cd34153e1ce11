"""Training: the task, its optimizer, devices, checkpoints, plots and progress."""
