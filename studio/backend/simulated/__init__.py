"""A GPU that is not there: a device whose tensors have devices, shapes and types, but no values.

Torch's Python backend (PrivateUse1) gives the device its name, and fake tensors its operators. Whatever a run does on a
GPU it does here as well, on any size and without the memory for it: tensors on two devices are refused as there, and
the memory of every allocation is counted. Nothing is computed: what is read back is one.
"""
