"""Channels: how answers reach people and programs. Each is a sender (services/conversation/outbox.py has the contract);
none imports services."""
