"""EasyEdit: found, its methods looked up, ours put into it. Its own package is imported only when asked for."""

from causaledit.hosts.easyedit.files import files_of, may_be_easyedits, spelled
from causaledit.hosts.easyedit.found import HOME_VARIABLE, is_available
from causaledit.hosts.easyedit.methods import own_methods
from causaledit.hosts.easyedit.patches import register

__all__ = [
    "HOME_VARIABLE",
    "files_of",
    "is_available",
    "may_be_easyedits",
    "own_methods",
    "register",
    "spelled",
]
