"""OpenVINO on the CPU as a backend, with IR files (``.xml`` and ``.bin``) as artifacts."""
