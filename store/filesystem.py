"""Says whether a path lies on a network file system, where SQLite's locks and shared memory cannot be trusted."""

import os
import re
import subprocess
import sys
from pathlib import Path

NETWORK_TYPES = frozenset(
    """nfs nfs3 nfs4 cifs smb smb2 smb3 smbfs 9p afs afpfs ceph coda davfs glusterfs gfs2 gpfs lustre beegfs ncpfs ocfs2 orangefs
    webdav fuse.sshfs fuse.glusterfs fuse.ceph fuse.s3fs fuse.rclone fuse.gcsfuse fuse.davfs fuse.smbnetfs fuse.curlftpfs
    fuse.mount-s3 fuse.blobfuse fuse.blobfuse2 fuse.juicefs fuse.moosefs""".split()
)
_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def network_type(path: Path, mountinfo: str | None = None) -> str | None:
    """The name of the network file system that holds `path`, or None when it is local or cannot be told."""
    real = os.path.realpath(path)
    if mountinfo is None:
        mountinfo = _read_mountinfo()
    mounts = _from_mountinfo(mountinfo) if mountinfo is not None else _from_mount_command()
    best, found = -1, None
    for point, kind in mounts:
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # a later mount on the same point hides the earlier one
            best, found = len(point), kind
    return found if found in NETWORK_TYPES else None


def _read_mountinfo() -> str | None:
    try:
        return _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None


def _from_mountinfo(text: str) -> list[tuple[str, str]]:
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if separator and len(fields) > 4:
            mounts.append((_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]), kinds[0]))
    return mounts


def _from_mount_command() -> list[tuple[str, str]]:
    if sys.platform != "darwin":
        return []
    try:
        done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    pattern = re.compile(r"^.* on (.+) \(([a-z0-9_.]+)[,)]", re.MULTILINE)
    return pattern.findall(done.stdout)
