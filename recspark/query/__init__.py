"""Text of a predictive query to frozen, checked nodes; imports neither Spark nor torch."""
