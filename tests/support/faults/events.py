"""Events written one by one, where a scenario says which versions come when."""

import json
import random

from support.faults.script import Event
from support.faults.texts import write


def numbered(name: str, version: int, op: str, choose: random.Random, *, serial: int | None = None) -> Event:
    """An event of a source that counts; its text says which writing it is: the version, unless `serial` says otherwise."""
    serial = version if serial is None else serial
    title, text = write(name, serial, choose)
    content = {"title": title, "text": text} if op == "upsert" else {}
    metadata = {} if op == "delete" else {"metadata": {"serial": serial}}
    value = json.dumps({"op": op, "id": name, "version": version, **content, **metadata}).encode()
    return Event(name=name, kind=op, key=name.encode(), value=value, version=version)


def tombstone(name: str, version: int) -> Event:
    """The null value that follows a delete, for compaction."""
    headers = (("livedex-version", str(version).encode()),)
    return Event(name=name, kind="delete", key=name.encode(), value=None, headers=headers, version=version)
