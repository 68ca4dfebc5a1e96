"""``python -m inpage.cli`` is ``inpage``."""

import sys

from . import main

sys.exit(main())
