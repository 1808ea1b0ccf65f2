"""Stand-ins for what can't be installed where the tests run. Each follows its maker's documentation, and says which."""
