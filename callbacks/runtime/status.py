"""The exit status that callbacks and the command agree on; importing this module imports nothing else."""

TRY_AGAIN = 75  # another process of the training has died: EX_TEMPFAIL of sysexits.h, which job scripts requeue
