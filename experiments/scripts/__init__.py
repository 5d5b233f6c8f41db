"""Plain Python scripts that instantiate a Trainer."""
