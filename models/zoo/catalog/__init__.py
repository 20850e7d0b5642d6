"""What each family of the zoo has: names, data, metric, floor and recipe. No torch, and no network."""
