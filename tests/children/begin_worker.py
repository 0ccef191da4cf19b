"""Ray starts this in the place of a worker: it asks for a copy of `ready_process`, and waits.

``python begin_worker.py --language=… --serialized-runtime-env-context=… WORKER WORDS``

Where nobody answers, it becomes the worker itself.
"""

import contextlib
import json
import os
import socket
import sys

words = [word for word in sys.argv[1:] if not word.startswith(("--language=", "--serialized-"))]
request = {
    "words": words,
    "environment": dict(os.environ),
    "folder": os.getcwd(),
    "path": [os.path.dirname(words[0]), *sys.path[1:]],
}
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as ready:
    try:
        ready.connect(os.environ["MPT_TEST_READY"])
        socket.send_fds(ready, [json.dumps(request).encode()], [0, 1, 2])
    except OSError:
        os.execv(sys.executable, [sys.executable, *words])
    with contextlib.suppress(OSError):
        ready.recv(1)
