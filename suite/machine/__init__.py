"""The machine: devices, memory, threads, energy, disk, and how much of them each phase of a cell uses."""
