"""The relay: lines of an app-server out to clients, frames of clients in to the app-server.

fold.py and core.py are pure; link.py, outbound.py, websocket.py and live.py are the thin shell with the sockets.
"""
