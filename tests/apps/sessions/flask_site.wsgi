"""A Flask application, its sessions kept by httpd; it has no secret key."""
from flask import Flask, jsonify, request, session

from mod_drover.contrib.flask import SessionInterface

app = application = Flask(__name__)
app.session_interface = SessionInterface()


@app.get("/untouched")
def untouched():
    return "nothing"


@app.get("/count")
def count():
    session["n"] = session.get("n", 0) + 1
    return str(session["n"])


@app.get("/cart")
def cart():
    session.setdefault("cart", []).append(request.args["add"])
    return jsonify(session["cart"])


@app.get("/login")
def login():
    session["user"] = request.args["name"]
    session.permanent = True
    session.drover.regenerate()
    return jsonify(timeout=session.drover.timeout)


@app.get("/who")
def who():
    return jsonify(user=session.get("user"), new=session.new, timeout=session.drover.timeout)


@app.get("/logout")
def logout():
    session.drover.invalidate()
    return "bye"


@app.get("/boom")
def boom():
    session["n"] = 1000
    return str(1 / 0)
