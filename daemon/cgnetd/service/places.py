# SPDX-License-Identifier: Apache-2.0
"""Where things are unless settings say otherwise, for those who must not wait for settings to be imported.

Must not import anything.
"""

CONFIG = "/etc/cgnetd/cgnetd.yaml"  # drop-ins are in the directory of this name and ".d"
CONTROL_SOCKET = "/run/cgnetd/control.sock"
