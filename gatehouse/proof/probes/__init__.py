"""What runs at a position: plain standard library, because it is sent over and run where nothing is installed."""
