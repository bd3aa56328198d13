"""llama.cpp's server: MODEL SLOTS CONTEXT THREADS. Says where it listens, and ends with standard input."""

import os
import socket
import sys

from xllamacpp import CommonParams, Server

model, slots, context, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
params = CommonParams()
params.model.path = model
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = slots
params.n_ctx = context
params.cpuparams.n_threads = threads
server = Server(params)
print(f"listening on http://127.0.0.1:{port}", flush=True)
while sys.stdin.buffer.read(1 << 16):
    pass
os._exit(0)
