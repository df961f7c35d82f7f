"""What reports of the tests say about the machine."""

MACHINE = {
    "cpu": "a CPU",
    "instruction_set": "avx2",
    "physical_cores": 2,
    "python": "3.11",
    "torch": "2.13",
}
