"""Evaluation: methods, reference policies, metrics and the tables that compare them."""
