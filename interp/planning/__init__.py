"""What a run will cost, told from configurations alone: a model without weights, its loop, its operations and bytes."""
