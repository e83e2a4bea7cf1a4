"""llama.cpp's own HTTP server, by the interpreter of an environment that has xllamacpp: `python llama_server.py GGUF PORT`. Ends with its parent."""

import ctypes
import sys
import time

import xllamacpp

ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
settings = xllamacpp.CommonParams()
settings.model.path = sys.argv[1]
settings.port = int(sys.argv[2])
settings.n_parallel, settings.n_ctx, settings.warmup = 4, 8192, False
settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(settings)
while True:
    time.sleep(60)
