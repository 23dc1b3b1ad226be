"""The learned models in use: read from their folders, asked with care, and what they said kept."""
