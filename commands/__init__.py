"""The commands of `./kit`, one module a topic: each is a few lines over the rooms of the house (see tasks.py)."""
