"""Django's own tests of session engines, on ours. Its sources are not here: scripts/deps.sh fetches them."""
import io
import unittest

from django.conf import settings

settings.configure(
    SECRET_KEY="not secret",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sessions", "sessions_tests"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="mod_drover.contrib.django",
    USE_TZ=True,
)

import django  # noqa: E402

django.setup()

from django.test import SimpleTestCase  # noqa: E402
from django.test.utils import setup_test_environment  # noqa: E402
from sessions_tests.tests import SessionTestsMixin  # noqa: E402

from mod_drover.contrib.django import SessionStore  # noqa: E402

setup_test_environment()


class DroverSessionTests(SessionTestsMixin, SimpleTestCase):
    backend = SessionStore


def run(only=None):
    """Runs them all in this thread; how many, and what was said of those that failed."""
    out = io.StringIO()
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromName(only, DroverSessionTests) if only else loader.loadTestsFromTestCase(DroverSessionTests)
    result = unittest.TextTestRunner(out).run(suite)
    bad = ["%s: %s" % pair for pair in result.failures + result.errors + result.skipped]
    return result.testsRun, bad
