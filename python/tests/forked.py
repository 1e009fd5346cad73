# SPDX-License-Identifier: Apache-2.0
"""torchrun for tests: imports PyTorch and transformers once, then runs a script in so many forks, for each line of standard input:

    {"processes": 2, "argv": ["script.py", ...], "out": "where standard output goes"}     answered by {"codes": [0, 0]}
"""
import json
import os
import runpy
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM     # noqa: F401

from fleet import free_port

torch.set_num_threads(1)
for line in sys.stdin:
    job = json.loads(line)
    os.environ.update(WORLD_SIZE=str(job["processes"]), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    children = []
    for rank in range(job["processes"]):
        child = os.fork()
        if child == 0:
            fd = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(fd, 1)
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            sys.argv = job["argv"]
            code = 1
            try:
                runpy.run_path(sys.argv[0], run_name="__main__")
                code = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps({"codes": codes}), flush=True)
