"""Table 4: a grid of recipes, several seeds each, and what their differences say."""
