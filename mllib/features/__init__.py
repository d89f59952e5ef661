"""From log frames to numbers: context, windows, time and category encoders, message templates."""
