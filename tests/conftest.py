"""What all tests share: no test fails because a machine was slow, and none writes into the user's cache folder."""

import os

from hypothesis import settings

os.environ["SPECIALISTS_GRAPH_CACHE"] = ""

settings.register_profile("patient", deadline=None, derandomize=True)
settings.load_profile("patient")
