"""Whether a folder lies on a network's file system, where SQLite's locks and shared memory do not hold.

Known on Linux by the table of mounts, and on Windows by the kind of the drive. Elsewhere nothing is known, and such a
folder is not recognized.
"""

from __future__ import annotations

import os
import re
import sys

__all__ = ["network_file_system"]

MOUNTS = "/proc/self/mountinfo"

NETWORK = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "gfs2",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.cephfs",
        "fuse.davfs2",
        "fuse.blobfuse",
        "fuse.blobfuse2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.hdfs",
        "fuse.juicefs",
        "fuse.mount-s3",
        "fuse.mountpoint-s3",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.s3ql",
        "fuse.seaweedfs",
        "fuse.smbnetfs",
        "fuse.sshfs",
    ]
)

REMOTE_DRIVE = 4


def network_file_system(path: str, *, mounts: str = MOUNTS) -> str | None:
    """The kind of network file system that the absolute, real ``path`` lies on; ``None``: on none that is known.

    ``mounts``: the table to read, in the format of Linux's ``mountinfo``.
    """
    if sys.platform == "win32":
        return _remote(path)
    try:
        with open(mounts, "rb") as table:
            lines = table.read().splitlines()
    except OSError:
        return None
    kind = _mounted(os.fsencode(path), lines)
    return kind if kind in NETWORK else None


def _mounted(path: bytes, lines: list[bytes]) -> str | None:
    """The file system's type of the mount that ``path`` lies in: the deepest one, and of two at one place the last."""
    best, kind = -1, None
    for line in lines:
        before, _, after = line.partition(b" - ")
        fields, types = before.split(b" "), after.split(b" ")
        if len(fields) < 5:
            continue
        point = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8) & 255]), fields[4])
        inside = path == point or path.startswith(point.rstrip(b"/") + b"/")
        if inside and len(point) >= best:
            best, kind = len(point), types[0].decode("ascii", "replace").lower()
    return kind


def _remote(path: str) -> str | None:
    if sys.platform != "win32":
        return None
    import ctypes

    drive = os.path.splitdrive(path)[0]
    if drive.startswith(("\\\\?\\", "//?/")) and not drive[4:].upper().startswith("UNC"):
        drive = drive[4:]
    if drive.startswith(("\\\\", "//")):
        return "a network share"
    if ctypes.windll.kernel32.GetDriveTypeW(drive + "\\") == REMOTE_DRIVE:
        return "a network drive"
    return None
