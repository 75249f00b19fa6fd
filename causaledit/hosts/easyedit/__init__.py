"""EasyEdit: found, its methods looked up, ours put into it. Its own package is imported only when asked for."""

from causaledit.hosts.easyedit.found import HOME_VARIABLE, is_available
from causaledit.hosts.easyedit.methods import own_methods
from causaledit.hosts.easyedit.patches import register

__all__ = ["HOME_VARIABLE", "is_available", "own_methods", "register"]
