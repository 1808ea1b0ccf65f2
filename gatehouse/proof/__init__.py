"""Proof: probes that run inside every segment, what a site's policy has them expect, and the results as evidence."""
