"""Plain Python scripts that train without the `zoo` command, or export what it trained."""
