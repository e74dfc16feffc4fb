"""The defects that were seen at real servers, planted again: each must be caught by what was added for it."""

from __future__ import annotations
