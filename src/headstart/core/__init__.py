"""What every room may use: errors, records, progress, names, wording."""
