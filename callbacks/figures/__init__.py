"""Pure drawing: arrays in, a matplotlib `Figure` out. Only `callback.py` in this room knows Lightning."""
