"""Settings for Django's own tests, as its tests/README.rst asks for them.

They, and the modules beside them that they name, run under the suite's own Python.
"""

from __future__ import annotations

import os


def _database(name: str) -> dict[str, str]:
    return {
        "ENGINE": "django.db.backends.postgresql",
        # Its tests make databases of their own: test_main, test_other.
        "NAME": name,
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"],
    }


DATABASES = {"default": _database("main"), "other": _database("other")}
SECRET_KEY = "for tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "django_outcomes.Runner"
