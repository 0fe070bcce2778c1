"""A small application on a real data set: the flights that left New York City in 2013, sharded by aircraft."""
