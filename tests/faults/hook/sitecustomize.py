"""On the path of a flow run that a test wants to stop in its middle; Python imports it by itself."""

import os

if os.environ.get("SOFTAD_TEST_HOLD"):
    from tests.faults.points import from_environment

    from_environment()
