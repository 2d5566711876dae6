"""Text in: documents, tokenizer, blocks of token ids, and the batches of a training step."""
