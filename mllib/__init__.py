"""Millrace: scores logs in batch, retrains the models, and promotes one only when it is better."""
