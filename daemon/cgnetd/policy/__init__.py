# SPDX-License-Identifier: Apache-2.0
"""The meaning of policies: documents to values (`load`), who is governed by what (`select`), what happens (`evaluate`).

Pure: no I/O, no bytes of the kernel, no clock.
"""
