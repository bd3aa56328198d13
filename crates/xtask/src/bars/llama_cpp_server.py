"""llama.cpp's server: PORT MODEL SLOTS THREADS."""

import signal
import sys

from xllamacpp import CommonParams, Server

port, model, slots, threads = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
params = CommonParams()
params.model.path = model
params.hostnames = ["127.0.0.1"]
params.port = port
params.n_parallel = slots
params.n_ctx = 1024 * slots
params.cpuparams.n_threads = threads
server = Server(params)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
