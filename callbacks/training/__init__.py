"""Callbacks that change a training: its initial weights, its batches, its gradients, its augmentation."""
