"""What is measured, against what, as ratios: `python -m benchmarks.NAME [--json]`."""
