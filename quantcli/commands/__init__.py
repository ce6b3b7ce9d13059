"""The verbs: one readable file per command, over the rooms below."""
