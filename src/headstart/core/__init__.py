"""Used by every package: errors, records, progress, files, fingerprints, settings, wording."""
