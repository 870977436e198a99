"""Connections from vendors' vaults, written with :mod:`toolguard.connections.kit`. Public."""

from toolguard.connections.vendors.arcade import Arcade
from toolguard.connections.vendors.nango import Nango
from toolguard.connections.vendors.scalekit import Scalekit
from toolguard.connections.vendors.workos import WorkOSPipes

__all__ = ["Arcade", "Nango", "Scalekit", "WorkOSPipes"]
