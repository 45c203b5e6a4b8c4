"""`make bench`: all ratios and rates that the README quotes, from one run."""

import logging

from benchmarks import bc_loader, flow, guard, guidance, iteration, memory, monitor, prefix

logging.disable(logging.WARNING)
for section in (iteration, monitor, guard, flow, memory, bc_loader, prefix, guidance):
    for name, value in section.run():
        print(f"{name:52} {value}", flush=True)
