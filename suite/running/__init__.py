"""One cell becomes one record."""
