"""Restoration: a picture, its references and a generator become a result."""
