"""`python -m zoo` is the `zoo` command."""

import sys

from zoo.command.main import main

sys.exit(main())
