"""`python -m imqueue`."""

import sys

from imqueue.cli import main

sys.exit(main())
