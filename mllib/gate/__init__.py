"""The gate: what decides whether a candidate takes the champion's place.

``slices`` cut time and ``borders`` keep bursts whole, ``evaluation`` measures, ``promotion`` decides by the gates.
Pure: data in, data out.
"""
