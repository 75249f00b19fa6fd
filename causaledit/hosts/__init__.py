"""Hosts: EasyEdit where it is importable, the embedded one otherwise. Both keep one contract."""

from __future__ import annotations


def find_base_editor() -> type:
    """EasyEdit's `BaseEditor` with CausalEdit registered, or the embedded host's.

    EasyEdit is looked for among importable packages and in the folder named by `EASYEDIT_HOME`.

    Raises:
        HostError: `EASYEDIT_HOME` names a folder without EasyEdit, or that EasyEdit is too old.
    """
    from causaledit.hosts import easyedit

    if easyedit.is_available():
        return easyedit.register()
    from causaledit.hosts.embedded import EmbeddedEditor

    return EmbeddedEditor
