"""Low rank: a linear layer becomes two thin ones."""
