# SPDX-License-Identifier: Apache-2.0
"""A policy directory that is edited at random: files come, go, change places and owners of names, with mistakes.

Every edit replaces whole files, one of each path, so that each leaves another stamp. Must not know who reads them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

NAMES = tuple("abcdefgh")
SETS = ("s", "t")
WORDS = ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", '"2001:db8::/32"', "private", '"set:s"', '"set:t"', '"service:db"')
USERS = ("alice", "bob")
_ADDRESSES = ("10.2.0.0/15", "198.51.100.0/24", '"2001:db8:1::/48"', "10.0.0.0/8")


class EditedDirectory:
    """`directories`: policy directories, the stronger one first. `uids`: who the users are."""

    def __init__(self, at: Path, source: random.Random) -> None:
        self._at = at
        self._random = source
        self._touched: set[Path] = set()  # since the end of the last edit
        self.directories = [str(at / name) for name in ("etc", "run")]
        self.uids = dict.fromkeys(USERS, 1000)
        self._edits = (self._write, self._write, self._write, self._list, self._list, self._remove, self._mask)
        self._edits += (self._swap, self._touch, self._adjust, self._move_user)
        for name in ("etc", "run", "sets"):
            (at / name).mkdir()
        for name in SETS:
            self._replace(self._set_file(name), "203.0.113.0/24\n")
        for name in ("s", "t", "db"):
            self._replace(at / "run" / f"{name}.yaml", self._fixed(name))
        self._touched.clear()

    def edit(self) -> None:
        """One edit, sometimes several of different files."""
        for _ in range(self._random.choice((1, 1, 1, 2, 4))):
            self._random.choice(self._edits)()
        self._touched.clear()

    def mend(self, wrong: Iterable[str]) -> None:
        """Make these files right, whatever is wrong with them; the next edit leaves them alone."""
        for path in map(Path, sorted(wrong)):
            if path.stem in NAMES:
                self._touched.add(path)
                path.unlink(missing_ok=True)
            elif path.suffix == ".txt":
                self._replace(path, "203.0.113.0/24\n")
            else:
                self._replace(path, self._fixed(path.stem))

    def _write(self) -> None:
        draw = self._random.random()
        name = self._random.choice(NAMES)
        if draw < 0.15:
            name = self._random.choice(("s", "t", "db"))
            text = self._fixed(name)
        else:
            extra = self._random.choice(NAMES) if draw > 0.95 else name
            documents = [self._policy(name), *(self._policy(other) for other in {extra} - {name})]
            text = "---\n".join(documents)
        if self._random.random() < 0.04:
            text = text.replace("10.0.0.0/8", "10.0.0.1/8").replace("kind: Policy", "kind: Polizei")
        self._replace(self._policy_file(name), text)

    def _list(self) -> None:
        lines = self._random.choice((0, 3, 400, 400))
        text = "".join(f"10.{self._random.randrange(256)}.{self._random.randrange(256)}.0/24\n" for _ in range(lines))
        if self._random.random() < 0.05:
            text += "nonsense\n"
        self._replace(self._set_file(self._random.choice(SETS)), text)

    def _remove(self) -> None:
        gone = self._policy_file(self._random.choice(NAMES))
        if gone.exists() and gone not in self._touched:
            self._touched.add(gone)
            gone.unlink()

    def _mask(self) -> None:
        masking = self._at / "etc" / f"{self._random.choice(NAMES)}.yaml"
        if masking in self._touched:
            return
        if masking.is_symlink():
            self._touched.add(masking)
            masking.unlink()
        elif self._random.random() < 0.5:
            self._replace(masking, "")
        else:
            self._touched.add(masking)
            masking.unlink(missing_ok=True)
            masking.symlink_to("/dev/null")

    def _swap(self) -> None:
        one, other = (self._policy_file(name) for name in self._random.sample(NAMES, 2))
        if one.is_file() and other.is_file() and not {one, other} & self._touched:
            text = one.read_text(), other.read_text()
            self._replace(one, text[1])
            self._replace(other, text[0])

    def _touch(self) -> None:
        path = self._policy_file(self._random.choice(NAMES))
        if path.is_file() and path not in self._touched:
            os.utime(path)

    def _adjust(self) -> None:
        """Another port in a file of the same size and time."""
        path = self._policy_file(self._random.choice(NAMES))
        if path.is_file() and path not in self._touched:
            before = path.stat()
            port, other = self._random.sample(("443", "444", "445"), 2)
            self._replace(path, path.read_text().replace(f"ports: [{port}]", f"ports: [{other}]"))
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _move_user(self) -> None:
        self.uids[self._random.choice(USERS)] = self._random.randrange(1000, 1003)

    def _policy(self, name: str) -> str:
        subject = f"units: [{name}.service]"
        if self._random.random() < 0.4:
            subject += f", users: [{self._random.choice(USERS)}]"
        rules = "".join(self._rule() for _ in range(self._random.randrange(4)))
        egress = f"  egress:\n{rules}" if rules else ""
        tier = self._random.choice(("admin", "normal", "normal", "baseline"))
        head = f"apiVersion: cgnetd/v1\nkind: Policy\nmetadata: {{name: {name}}}\nspec:\n"
        return f"{head}  subject: {{{subject}}}\n  tier: {tier}\n{egress}  default: {{bind: deny}}\n"

    def _rule(self) -> str:
        to = ", ".join(self._random.sample(WORDS[:-1], self._random.choice((1, 1, 2, 3))))
        port = self._random.choice(("443", "444", "445"))
        draw = self._random.random()
        if draw < 0.15:
            return '    - {action: redirect, to: ["service:db"]}\n'
        if draw < 0.3:
            return f"    - {{action: redirect, to: [{to}], protocols: [tcp], redirect: {{to: ['127.0.0.1:{port}']}}}}\n"
        holes = f", except: [{self._random.choice(WORDS[1:5])}]" if draw < 0.5 else ""
        return f"    - {{action: {self._random.choice(('allow', 'deny'))}, to: [{to}]{holes}, ports: [{port}]}}\n"

    def _fixed(self, name: str) -> str:
        """The document of a set or of the service, and perhaps a policy with it, which then is not remembered."""
        beside = f"---\n{self._policy(self._random.choice(NAMES))}" if self._random.random() < 0.1 else ""
        if name == "db":
            last = self._random.randrange(1, 5)
            spec = f"{{addresses: [192.0.2.20], ports: [{{port: 5432}}], backends: [{{address: 10.0.0.{last}}}]}}"
            return f"apiVersion: cgnetd/v1\nkind: Service\nmetadata: {{name: db}}\nspec: {spec}\n{beside}"
        words = ", ".join(self._random.sample(_ADDRESSES, self._random.choice((1, 1, 2))))
        files = self._random.choice(("", *(f", files: [{self._set_file(other)}]" for other in (name, name, "s"))))
        spec = f"{{addresses: [{words}]{files}}}"
        return f"apiVersion: cgnetd/v1\nkind: AddressSet\nmetadata: {{name: {name}}}\nspec: {spec}\n{beside}"

    def _policy_file(self, name: str) -> Path:
        return self._at / ("etc" if self._random.random() < 0.2 else "run") / f"{name}.yaml"

    def _set_file(self, name: str) -> Path:
        return self._at / "sets" / f"{name}.txt"

    def _replace(self, path: Path, text: str) -> None:
        if path in self._touched:
            return
        fresh = self._at / "fresh"
        fresh.write_text(text)
        fresh.rename(path)
        self._touched.add(path)
