"""Architectures of published weights, rewritten: torchvision fails beside the CPU torch."""
