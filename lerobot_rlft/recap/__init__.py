"""Rounds of advantage-conditioned fine-tuning: collect, value, advantages, refit."""
