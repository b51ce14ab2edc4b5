"""What ./argus runs. options, launch and environment run before .venv exists: they import nothing but Python's own."""
