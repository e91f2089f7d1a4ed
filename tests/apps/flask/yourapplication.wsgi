"""As Flask's documentation has it: the application object, imported from a module beside."""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from yourapplication import app as application
