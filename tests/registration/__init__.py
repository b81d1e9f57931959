"""Tests of the registration room."""
