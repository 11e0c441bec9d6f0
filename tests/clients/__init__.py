# SPDX-License-Identifier: Apache-2.0
"""Unmodified programs whose connections and datagrams are redirected, and unmodified proxies that take them."""
