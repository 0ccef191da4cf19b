"""What is compared with what: study, spaces, presets, recipes, validation tasks."""
