"""A small Flask application with a session, URLs, streaming, JSON and errors."""
from flask import Flask, Response, abort, jsonify, redirect, request, session, url_for

app = Flask(__name__)
app.secret_key = "for tests only"


@app.get("/")
def index():
    return f"Hello {session['name']}" if "name" in session else "Logged out"


@app.post("/login")
def login():
    session["name"] = request.form["name"]
    return redirect(url_for("index"))


@app.get("/url")
def url():
    return url_for("login", next="/", _external=True)


@app.get("/stream")
def stream():
    return Response((f"row {i}\n" for i in range(100)), mimetype="text/plain")


@app.post("/json")
def echo():
    return jsonify(request.get_json())


@app.get("/teapot")
def teapot():
    abort(418)


@app.get("/boom")
def boom():
    return str(1 / 0)
