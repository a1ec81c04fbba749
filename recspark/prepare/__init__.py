"""Source tables to training subgraphs, on Spark; never imports torch."""
