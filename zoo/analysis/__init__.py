"""Analyses that work for any network.

Each file answers one question. Its functions take a plain `torch.nn.Module` where they need a network (one of the
zoo's, or any other: what a system knows better, such as `cam_target`, is found by duck typing), and need neither a
Trainer nor a checkpoint. They return plain data (numbers, tensors, named tuples); drawing is a separate function that
takes these. They leave mode, gradients, `requires_grad`, hooks and the global random states as they found them, run on
the device of the network, and import no system.
"""
