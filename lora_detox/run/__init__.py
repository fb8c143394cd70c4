"""The parts of one run: the job and how it is built, its controls, its iterations, its end."""
