"""From a trained model to the written recommendations."""
