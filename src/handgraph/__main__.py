"""`python -m handgraph`."""

import sys

from handgraph.cli import main

sys.exit(main())
