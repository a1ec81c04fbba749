"""recspark: personal recommendations for email campaigns, from Delta to Delta."""

__version__ = "0.1.0"
