"""Sabotage: every control of the lab's gateway broken on purpose, to show that the compliance suite notices."""
