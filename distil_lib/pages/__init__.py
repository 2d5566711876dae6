"""What the pages of the book need: the paper's numbers and plots."""
