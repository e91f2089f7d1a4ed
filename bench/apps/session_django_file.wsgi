import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import session_django

application = session_django.make("django.contrib.sessions.backends.file")
