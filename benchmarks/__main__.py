"""`make bench`: all ratios and rates that the README quotes, from one run; with `chaos` see that module."""

import logging
import sys

from benchmarks import bc_loader, chaos, flow, guard, guidance, iteration, memory, monitor, prefix

if sys.argv[1:2] == ["chaos"]:
    sys.exit(chaos.main(sys.argv[2:]) > 0)
logging.disable(logging.WARNING)
for section in (iteration, monitor, guard, flow, memory, bc_loader, prefix, guidance):
    for name, value in section.run():
        print(f"{name:52} {value}", flush=True)
