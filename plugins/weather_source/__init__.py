"""Daily weather of Seattle from a SQLite database in the plugin's own data directory."""
