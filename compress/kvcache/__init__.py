"""How a decoder stores the keys and values of the tokens that it has seen."""
