"""Fine-tuning a model on a task: several seeds, records, how much of a teacher is kept."""
