"""What a node is told: models, catalogue of keys, sources, checks and texts."""
