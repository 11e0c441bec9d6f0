# SPDX-License-Identifier: Apache-2.0
"""What a person may have meant by a word that is not accepted. Must not know where the words come from."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_MAX_CANDIDATES = 500  # a search through more than this costs more than the hint is worth


def did_you_mean(word: str, accepted: Collection[str]) -> str:
    """ "; did you mean X?", or "" where nothing is near."""
    if len(accepted) > _MAX_CANDIDATES or len(word) > 80:
        return ""
    near = get_close_matches(word.lower(), accepted, n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""
