"""The PyTorch Lightning module zoo: what is trained."""
