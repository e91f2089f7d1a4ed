"""Makes an interpreter a worker of mod_drover. droverd runs this file; nothing imports it."""
import os
import sys

OLDEST = (3, 9)
if sys.version_info[:2] < OLDEST:
    # Python 2 must be able to read this file up to here, too.
    sys.exit("mod_drover: python %d.%d at %s is too old; mod_drover needs %d.%d or newer" % (sys.version_info[:2] + (sys.executable,) + OLDEST))

import importlib.util


def load(name, path, package=None):
    """Imports one file under a name, without looking at sys.path."""
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    packages = os.path.dirname(here)
    # Python puts this file's directory first in sys.path; it must not shadow the application's
    # modules.
    if sys.path and os.path.abspath(sys.path[0]) == here:
        del sys.path[0]
    sys.path.append(packages)

    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    drover = load("_drover", os.path.join(os.path.dirname(packages), "_drover.abi3.so"))
    drover.protect_process()
    ours = os.path.join(packages, "mod_wsgi")
    load("mod_drover", os.path.join(here, "__init__.py"), [here])
    load("mod_wsgi", os.path.join(ours, "__init__.py"), [ours])
    drover.run(int(options["--control"]), int(options["--queue"]), int(options["--tokens"]))


if __name__ == "__main__":
    main()
