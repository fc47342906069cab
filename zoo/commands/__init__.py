"""The commands of ``zoo``, by what they are for. Nothing heavy is imported before one runs."""
