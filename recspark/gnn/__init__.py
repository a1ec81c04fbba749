"""The graph network and its training loop, in torch; never imports pyspark."""
