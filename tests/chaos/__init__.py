"""Everything goes wrong at once, by the dice of a seed, and an oracle says whether what was promised was kept."""
