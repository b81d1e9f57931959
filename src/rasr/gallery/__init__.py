"""Galleries: the user's own good photos, searchable by likeness (the paper's RIRR)."""
