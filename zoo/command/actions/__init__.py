"""What the verbs do that need torch: each the `run` of the verb of the same name, imported when that is called."""
