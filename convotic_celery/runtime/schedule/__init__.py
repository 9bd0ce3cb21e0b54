"""Placeholder: what lives here, and who may import whom."""
