"""What the gateway counts itself, for the dashboards: refused messages and connections, dropped packets, days left."""
