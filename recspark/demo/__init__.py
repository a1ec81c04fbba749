"""Source tables to try recspark on: a generated shop and a published data set."""
