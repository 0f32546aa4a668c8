"""The machine: devices, memory, threads, energy, disk, and what each phase of a cell takes of them."""
