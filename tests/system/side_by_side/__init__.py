# SPDX-License-Identifier: Apache-2.0
"""systemd's own network settings and cgnetd's policies, side by side: cases as data, the calls, and the page that is
written from them."""
