"""What one asks of any net.

Each file is one question. Its functions take a plain `torch.nn.Module` where they need a net (one of the zoo's, or any
other: what a system knows better, such as `cam_target`, is asked by duck typing), and need neither Trainer nor
checkpoint. They return plain data (numbers, tensors, named tuples); drawing is a function of its own that takes them.
They leave mode, gradients, `requires_grad`, hooks and the global random states as they found them, run on the device
where the net is, and import no system.
"""
