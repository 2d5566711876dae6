"""The tasks that models are fine-tuned on: GLUE, IMDb, SQuAD, and six of the documentation."""
