"""`python -m stepwise_dpo`."""

import sys

from stepwise_dpo.cli import main

sys.exit(main())
