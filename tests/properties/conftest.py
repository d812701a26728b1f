"""How hard to look: `suite` is what every run does, `hunt` is for an hour of your machine's time.

DELTADUCK_EXAMPLES=5000 python -m pytest tests/properties
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("suite", deadline=None, derandomize=True, database=None, suppress_health_check=CHECKS, max_examples=100)
settings.register_profile("hunt", parent=settings.get_profile("suite"), derandomize=False, print_blob=True)
settings.load_profile("hunt" if "DELTADUCK_EXAMPLES" in os.environ else "suite")
