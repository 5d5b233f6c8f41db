"""Using what was trained: models by name or file, what turns images and texts into their inputs, and export."""
