"""What the commands share."""

from __future__ import annotations

from causaledit.files import check_writable
from causaledit.models.tally import peak_rss_mb

__all__ = ["check_writable", "peak_rss_mb"]
