"""Architectures whose weights others published, rewritten here: torchvision does not load beside the CPU torch."""
