"""mod_drover's sessions for frameworks: `django`, `flask`, and `wsgi` for all others.

docs/sessions.md has an example of each.
"""
