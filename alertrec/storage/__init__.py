"""Tables, every query, sessions and migrations. Queries never commit; the use cases do."""
