# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a bed. Must not know who is told."""


class BedError(Exception):
    """A bed cannot be built or entered; the message says what and how to mend it."""


class LackingError(BedError):
    """This host lacks what beds need: a privilege, a program."""
