"""Argus, a self-hosted gateway between people and AI agents."""

VERSION = "0.1.0"
