# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a bed."""


class BedError(Exception):
    """A bed cannot be built or entered; the message says what and how to mend it."""
