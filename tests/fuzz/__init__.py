"""Bad input, by the thousand, from a seed."""
