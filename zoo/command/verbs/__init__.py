"""The verbs of the `zoo` command, one module each; `zoo.command.main` finds them by walking this folder."""
