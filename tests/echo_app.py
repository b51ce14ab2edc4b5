"""A server that says again what it hears, on the WebSocket object of the gateway: the peer of a conformance suite."""

from flask import Flask

from app.routes.sock import Sock

app = Flask(__name__)
sock = Sock(app)


@sock.route("/echo")
def echo(ws):
    """Every message back, text as text and binary as binary, until the peer closes."""
    while True:
        ws.send(ws.receive())
