"""What a file system can do."""

from __future__ import annotations

import errno
from pathlib import Path

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT)

_NETWORK = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.sshfs", "gfs2", "glusterfs"),
    *("gpfs", "lustre", "nfs", "nfs4", "ocfs2", "smb3", "smbfs"),
)


def is_passing(error: OSError) -> bool:
    """Return whether the same may succeed later: the storage is full or does not answer."""
    return error.errno in _PASSING


def over_network(folder: Path) -> bool:
    """Return whether a folder is on a file system that several machines see.

    SQLite's write-ahead log needs memory that all its processes share, so it must not be used
    there. Where the system does not say (no ``/proc``), the answer is no.
    """
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
        place = folder.resolve()
    except OSError:
        return False
    best, kind = -1, ""
    for line in lines:
        words = line.split(" ")
        mount = Path(words[4].replace("\\040", " "))
        if len(mount.parts) >= best and place.is_relative_to(mount):  # later mounts hide earlier
            best, kind = len(mount.parts), words[words.index("-") + 1]
    return kind in _NETWORK
