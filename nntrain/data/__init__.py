"Batches, fast and repeatable."
