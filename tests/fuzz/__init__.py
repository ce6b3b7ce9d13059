"""The mutation fuzzer: seeds, mutators, targets (command lines), and the engine that runs them in child processes."""
