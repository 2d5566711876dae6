"""How fast models answer on a CPU: Table 3, and other runtimes and number formats."""
