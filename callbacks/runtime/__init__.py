"""Callbacks and a logger for a run as a process: signals, memory errors, progress at the terminal, W&B."""
